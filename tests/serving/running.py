"""A model server on free ports in this process, and its clients made of the official classes."""

import asyncio
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.server import flags
from serving.server.engine import Engine
from serving.server.server import Server
from serving.server.tensorflow_engine import TensorFlowEngine

State = get_model_status_pb2.ModelVersionStatus


class Client:
    """What a caller can do with a model server."""

    def __init__(self, port: int, rest_port: int | None = None) -> None:
        self.port, self.rest_port = port, rest_port
        # A server that is still starting is asked again soon, not after gRPC's growing pauses.
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 200)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)
        self.model = model_service_pb2_grpc.ModelServiceStub(self.channel)
        self.end: Callable[[], object] = lambda: None  # asks the server to stop
        self.finished: Future[bool] = Future()  # whether it finished what it had accepted

    def predict(
        self, inputs: dict[str, Any], signature: str = "", *, timeout_s: float = 20.0, **spec: Any
    ) -> dict[str, NDArray[Any]]:
        """The outputs as arrays."""
        reply = self.prediction.Predict(request(inputs, signature, **spec), timeout=timeout_s)
        return {name: tf.make_ndarray(tensor) for name, tensor in reply.outputs.items()}

    def begin(self, inputs: dict[str, Any], signature: str = "") -> grpc.Future:
        """A Predict that goes on while the test does something else."""
        return self.prediction.Predict.future(request(inputs, signature), timeout=20)

    def refused(self, inputs: dict[str, Any], signature: str = "", **spec: Any) -> tuple[str, str]:
        """Status and text of a request that must fail."""
        return failure(lambda: self.predict(inputs, signature, **spec))

    def versions(self, name: str = "zoo", **spec: Any) -> dict[int, Any]:
        """GetModelStatus: version -> its ModelVersionStatus."""
        asked = get_model_status_pb2.GetModelStatusRequest()
        set_spec(asked.model_spec, name=name, **spec)
        return {status.version: status for status in self.model.GetModelStatus(asked, timeout=10).model_version_status}

    def states(self, name: str = "zoo") -> dict[int, str]:
        """GetModelStatus: version -> the name of its state; empty before the server has seen any."""
        try:
            return {version: State.State.Name(status.state) for version, status in self.versions(name).items()}
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return {}
            raise

    def health(self, service: str = "") -> str:
        """SERVING, NOT_SERVING, or the status of the failed call."""
        try:
            asked = health_pb2.HealthCheckRequest(service=service)
            reply = health_pb2_grpc.HealthStub(self.channel).Check(asked, timeout=10)
        except grpc.RpcError as error:
            return str(error.code().name)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))

    def metadata(self, *fields: str, name: str = "zoo") -> get_model_metadata_pb2.SignatureDefMap:
        """GetModelMetadata: the signatures."""
        asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=fields)
        asked.model_spec.name = name
        found = get_model_metadata_pb2.SignatureDefMap()
        self.prediction.GetModelMetadata(asked, timeout=10).metadata["signature_def"].Unpack(found)
        return found

    def get(self, path: str) -> tuple[int, str]:
        """Status and body from the REST port."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.rest_port}{path}", timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def get_json(self, path: str) -> Any:
        """The body of a good REST answer."""
        status, body = self.get(path)
        assert status == 200, body
        return json.loads(body)

    def metric(self, name: str, **labels: str) -> float:
        """The value of a Prometheus series; 0 when it is not there."""
        for line in self.get("/monitoring/prometheus/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            if series.split("{")[0] == name and all(f'{key}="{text}"' in series for key, text in labels.items()):
                return float(value)
        return 0.0


def request(inputs: dict[str, Any], signature: str = "", **spec: Any) -> predict_pb2.PredictRequest:
    """A PredictRequest; values that are no TensorProto yet are converted."""
    made = predict_pb2.PredictRequest(output_filter=spec.pop("output_filter", ()))
    set_spec(made.model_spec, **{"name": "zoo", **spec})
    made.model_spec.signature_name = signature
    for key, value in inputs.items():
        made.inputs[key].CopyFrom(
            value if isinstance(value, tensor_pb2.TensorProto) else tf.make_tensor_proto(np.asarray(value))
        )
    return made


def set_spec(model_spec: Any, *, name: str, version: int | None = None, label: str = "") -> None:
    """Fills a ModelSpec in."""
    model_spec.name = name
    if version is not None:
        model_spec.version.value = version
    if label:
        model_spec.version_label = label


def failure(call: Callable[[], Any]) -> tuple[str, str]:
    """Status and text of a call that must fail."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return error.code().name, error.details()
    raise AssertionError(f"the call was answered: {answer}")


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    """Returns when the condition holds; fails after that time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.02)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(argv: Sequence[object], *, until_available: bool = True, engine: Engine | None = None) -> Iterator[Client]:
    """A server with this command line in a thread of this process; ports are added.

    One run at a time, however many cores this machine has, and a look at the disk every 50 ms, unless the command line
    says otherwise.
    """
    rest_port = free_port()
    options = flags.parse(
        [
            "--narrow_runs=1",
            "--file_system_poll_wait_seconds=0.05",
            *map(str, argv),
            "--port=0",
            f"--rest_api_port={rest_port}",
        ]
    )
    engine = engine or TensorFlowEngine(intra_op=options.intra_op, inter_op=options.inter_op, precision="float32")
    port: Future[int] = Future()
    stop = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> bool:
        server = Server(options, engine)
        await server.start()
        port.set_result(server.port)
        await stop.wait()
        return await server.stop(cut_short=asyncio.Event())

    with ThreadPoolExecutor(1) as pool:
        finished = pool.submit(loop.run_until_complete, serve())
        client = Client(port.result(30), rest_port)
        client.end = lambda: loop.call_soon_threadsafe(stop.set)
        client.finished = finished
        try:
            if until_available:
                wait_until(lambda: client.health() == "SERVING", "the server is SERVING")
            yield client
        finally:
            client.channel.close()
            client.end()
            finished.result()
            loop.close()


def one_model(base_path: Path, *more: str) -> list[str]:
    """A command line for the model `zoo`."""
    return ["--model_name=zoo", f"--model_base_path={base_path}", *more]
