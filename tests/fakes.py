"""A model server that does what a test tells it: real gRPC, our own messages, no TensorFlow.

By itself it tells a picture's strongest colour channel, so that every row of a batch has its own right answer:

    with FaultyModelServer() as server:
        server.script(fail(grpc.StatusCode.UNAVAILABLE), slow(0.5))   # the next two calls, then good answers again
        ...
        assert len(server.calls) == 3
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from gateway import wire
from gateway.wire import prediction_pb2 as pb

LABELS = ("red", "green", "blue")


@dataclass(frozen=True)
class Call:
    """A Predict call as it arrived."""

    request: pb.PredictRequest
    metadata: dict[str, str | bytes]
    time_left_s: float


Behaviour = Callable[[pb.PredictRequest, grpc.ServicerContext], pb.PredictResponse]


def pixels_of(request: pb.PredictRequest) -> NDArray[np.uint8]:
    """uint8 [N, 224, 224, 3]."""
    tensor = request.inputs["images"]
    return np.frombuffer(tensor.tensor_content, np.uint8).reshape([dim.size for dim in tensor.tensor_shape.dim])


def strings(values: Iterable[str], shape: tuple[int, ...]) -> pb.TensorProto:
    """A string tensor."""
    dims = [pb.TensorShapeProto.Dim(size=size) for size in shape]
    packed = [value.encode() for value in values]
    return pb.TensorProto(dtype=pb.DT_STRING, tensor_shape=pb.TensorShapeProto(dim=dims), string_val=packed)


def floats(values: NDArray[np.float32], *, packed: bool = True) -> pb.TensorProto:
    """A float tensor, packed or, as the real server does by default, in float_val."""
    shape = pb.TensorShapeProto(dim=[pb.TensorShapeProto.Dim(size=size) for size in values.shape])
    if packed:
        return pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape=shape, tensor_content=values.astype("<f4").tobytes())
    return pb.TensorProto(dtype=pb.DT_FLOAT, tensor_shape=shape, float_val=values.ravel().tolist())


def good(request: pb.PredictRequest, context: grpc.ServicerContext | None = None) -> pb.PredictResponse:
    """The share of each colour channel in the picture, as probabilities."""
    del context
    means = pixels_of(request).mean(axis=(1, 2)).astype(np.float32) + 1e-3  # [N, 3]
    count = len(means)
    return pb.PredictResponse(
        model_spec=pb.ModelSpec(name=request.model_spec.name, version={"value": 7}),  # type: ignore[arg-type]
        outputs={
            "probabilities": floats(means / means.sum(axis=1, keepdims=True)),
            "labels": strings(LABELS * count, (count, len(LABELS))),
        },
    )


def changed(change: Callable[[pb.PredictResponse], object]) -> Behaviour:
    """The good answer after `change`."""

    def behave(request: pb.PredictRequest, context: grpc.ServicerContext) -> pb.PredictResponse:
        response = good(request, context)
        change(response)
        return response

    return behave


def with_output(name: str, tensor: pb.TensorProto) -> Behaviour:
    """The good answer with another output `name`."""
    return changed(lambda response: response.outputs[name].CopyFrom(tensor))


def fail(code: grpc.StatusCode, details: str = "as the test told") -> Behaviour:
    """A gRPC status instead of an answer."""

    def behave(request: pb.PredictRequest, context: grpc.ServicerContext) -> pb.PredictResponse:
        context.abort(code, details)
        raise AssertionError("abort raises")

    return behave


def slow(delay_s: float) -> Behaviour:
    """The good answer, late."""

    def behave(request: pb.PredictRequest, context: grpc.ServicerContext) -> pb.PredictResponse:
        time.sleep(delay_s)
        return good(request, context)

    return behave


@dataclass
class Hang:
    """Waits until the call is given up or the test lets go; tells how many wait."""

    def __post_init__(self) -> None:
        self.waiting = threading.Semaphore(0)  # released once for each call that waits
        self.let_go = threading.Event()
        self.given_up = threading.Event()

    def __call__(self, request: pb.PredictRequest, context: grpc.ServicerContext) -> pb.PredictResponse:
        context.add_callback(self._ended)
        self.waiting.release()
        self.let_go.wait(60)
        return good(request, context)

    def _ended(self) -> None:
        if not self.let_go.is_set():
            self.given_up.set()


class FaultyModelServer:
    """The server. `behaviour` answers what the script does not."""

    def __init__(
        self,
        address: str = "127.0.0.1:0",
        *,
        behaviour: Behaviour = good,
        credentials: grpc.ServerCredentials | None = None,
    ) -> None:
        self.behaviour = behaviour
        self._credentials = credentials
        self.states = {7: "AVAILABLE"}
        self.status_code: grpc.StatusCode | None = None  # instead of the states
        self.calls: list[Call] = []
        self.status_calls = 0
        self._script: deque[Behaviour] = deque()
        self._host, _, port = address.rpartition(":")
        self.port = int(port)
        self._server: grpc.Server | None = None
        self.start()

    @property
    def address(self) -> str:
        """host:port."""
        return f"{self._host}:{self.port}"

    def script(self, *behaviours: Behaviour) -> None:
        """What the next calls do."""
        self._script.extend(behaviours)

    def start(self) -> None:
        """Listen, on the same port as before."""
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        self._server = grpc.server(ThreadPoolExecutor(128), options=options)
        self._server.add_generic_rpc_handlers((_Handler(self),))
        if self._credentials:
            self.port = self._server.add_secure_port(self.address, self._credentials)
        else:
            self.port = self._server.add_insecure_port(self.address)
        self._server.start()

    def kill(self) -> None:
        """End as a killed process does: calls under way are cut off."""
        if self._server:
            self._server.stop(None).wait()
            self._server = None

    def __enter__(self) -> "FaultyModelServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def predict(self, request: pb.PredictRequest, context: grpc.ServicerContext) -> pb.PredictResponse:
        metadata = dict(context.invocation_metadata())
        self.calls.append(Call(request, metadata, context.time_remaining()))
        try:
            behaviour = self._script.popleft()
        except IndexError:
            behaviour = self.behaviour
        return behaviour(request, context)

    def get_status(self, request: pb.GetModelStatusRequest, context: grpc.ServicerContext) -> pb.GetModelStatusResponse:
        self.status_calls += 1
        if self.status_code:
            context.abort(self.status_code, "as the test told")
        return pb.GetModelStatusResponse(
            model_version_status=[
                pb.ModelVersionStatus(version=version, state=pb.ModelVersionStatus.State.Value(state))
                for version, state in self.states.items()
            ]
        )


class _Handler(grpc.GenericRpcHandler):
    """Both methods by their official paths."""

    def __init__(self, server: FaultyModelServer) -> None:
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            wire.PREDICT: grpc.unary_unary_rpc_method_handler(
                server.predict,
                request_deserializer=pb.PredictRequest.FromString,
                response_serializer=pb.PredictResponse.SerializeToString,
            ),
            wire.GET_MODEL_STATUS: grpc.unary_unary_rpc_method_handler(
                server.get_status,
                request_deserializer=pb.GetModelStatusRequest.FromString,
                response_serializer=pb.GetModelStatusResponse.SerializeToString,
            ),
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        return self._methods.get(handler_call_details.method)
