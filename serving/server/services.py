"""TensorFlow Serving's two gRPC services. Only translation: from messages to calls, from errors to status codes."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import grpc
import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from serving.server import requests
from serving.server.batching import Scheduler
from serving.server.engine import Arrays
from serving.server.errors import DeadlineExceeded, Internal, InvalidArgument, ServingError
from serving.server.logs import event
from serving.server.metrics import Metrics
from serving.server.models import Models

SIGNATURE_DEF: Final = "signature_def"
_CLOCK_SLACK_S: Final = 0.05
_MOST_TEXT: Final = 600  # characters of an error: gRPC's clients refuse trailers of 8 KiB, and one may take 12 bytes

Context = grpc.aio.ServicerContext[Any, Any]
_Request = TypeVar("_Request")
_Reply = TypeVar("_Reply")


class PredictionService:
    """Predict and GetModelMetadata; the calls for tf.Example (Classify, Regress, MultiInference) are UNIMPLEMENTED."""

    name = "tensorflow.serving.PredictionService"

    def __init__(self, models: Models, scheduler: Scheduler, metrics: Metrics) -> None:
        self._models, self._scheduler, self._metrics = models, scheduler, metrics
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server needs to offer this service."""
        return _handler(
            self.name,
            Predict=(self._counted(self._predict, metrics=True), predict_pb2.PredictRequest),
            GetModelMetadata=(
                self._counted(self._metadata, metrics=False),  # as in TensorFlow Serving
                get_model_metadata_pb2.GetModelMetadataRequest,
            ),
        )

    async def idle(self) -> None:
        """Waits until every request that was accepted is answered."""
        await self._idle.wait()

    async def _predict(self, request: predict_pb2.PredictRequest, context: Context) -> predict_pb2.PredictResponse:
        remaining = context.time_remaining()
        if remaining is not None and remaining <= 0:
            raise DeadlineExceeded("the deadline passed before the request was read")
        deadline = None if remaining is None else time.monotonic() + remaining
        with self._models.using(request.model_spec) as version:
            call = requests.read(request, version.servable)
            futures = self._scheduler.submit(version, call.signature, call.inputs, call.rows, deadline)
            outputs = _joined(await _all(futures))
            return requests.reply(call, outputs, model=version.model, version=version.number)

    async def _metadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, _: Context
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        if set(request.metadata_field) != {SIGNATURE_DEF}:
            asked = ", ".join(request.metadata_field) or "empty"
            raise InvalidArgument(f"metadata_field is {asked}, expected {SIGNATURE_DEF!r}")
        with self._models.using(request.model_spec) as version:
            return metadata(version.model, version.number, version.servable.signature_def_map)

    def _counted(
        self, method: Callable[[Any, Context], Coroutine[Any, Any, _Reply]], *, metrics: bool
    ) -> Callable[[Any, Context], Coroutine[Any, Any, _Reply]]:
        """The method, waited for by `idle`, and its outcome counted before the caller hears of it."""

        async def counted(request: Any, context: Context) -> _Reply:
            start = time.monotonic()
            status = grpc.StatusCode.UNKNOWN
            self._active += 1
            self._idle.clear()
            try:
                reply = await _foreseen(method(request, context))
                status = grpc.StatusCode.OK
                return reply
            except ServingError as error:
                status = error.code
                raise
            except asyncio.CancelledError:
                status = _why_cancelled(context)
                raise
            finally:
                name = request.model_spec.name
                known = name if name in self._models.names else "unknown"  # callers must not make labels up
                if metrics:
                    self._metrics.requested(known, status.name, time.monotonic() - start)
                self._active -= 1
                if self._active == 0:
                    self._idle.set()

        return counted


class ModelService:
    """GetModelStatus; HandleReloadConfigRequest is UNIMPLEMENTED: configuration changes by a restart.

    Args:
        models: What is asked about.
        about: What the server computes with; it is sent as trailing metadata.
    """

    name = "tensorflow.serving.ModelService"

    def __init__(self, models: Models, *, about: Mapping[str, str]) -> None:
        self._models, self._about = models, tuple(about.items())

    def handler(self) -> grpc.GenericRpcHandler:
        """What a gRPC server needs to offer this service."""
        return _handler(self.name, GetModelStatus=(self._status, get_model_status_pb2.GetModelStatusRequest))

    async def _status(
        self, request: get_model_status_pb2.GetModelStatusRequest, context: Context
    ) -> get_model_status_pb2.GetModelStatusResponse:
        context.set_trailing_metadata(self._about)
        return get_model_status_pb2.GetModelStatusResponse(
            model_version_status=self._models.statuses(request.model_spec)
        )


def metadata(model: str, version: int, signature_def_map: Any) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """What GetModelMetadata and its REST twin answer."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = model
    response.model_spec.version.value = version
    packed = AnyMessage()
    packed.Pack(signature_def_map)
    response.metadata[SIGNATURE_DEF].CopyFrom(packed)
    return response


def _handler(
    service: str, **methods: tuple[Callable[[Any, Context], Coroutine[Any, Any, Any]], Any]
) -> grpc.GenericRpcHandler:
    """The methods of a service, each with the message it takes; every other method is UNIMPLEMENTED.

    Not the generated `add_*_to_server`: with it, whoever sends bytes that are no message fills the log with tracebacks.
    """
    return grpc.method_handlers_generic_handler(
        service,
        {
            name: grpc.unary_unary_rpc_method_handler(
                _translated(method, message.DESCRIPTOR.name),
                request_deserializer=_reader(message),
                response_serializer=lambda reply: reply.SerializeToString(),
            )
            for name, (method, message) in methods.items()
        },
    )


def _reader(message: Any) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        try:
            return message.FromString(data)
        except DecodeError:
            return None

    return read


def _translated(
    method: Callable[[_Request, Context], Coroutine[Any, Any, _Reply]], message: str
) -> Callable[[_Request | None, Context], Coroutine[Any, Any, _Reply]]:
    """The method, its errors turned into the call's status."""

    async def answer(request: _Request | None, context: Context) -> _Reply:
        try:
            if request is None:
                raise Internal(f"these bytes are no {message}")  # INTERNAL: gRPC's own status for that
            return await _foreseen(method(request, context))
        except ServingError as error:
            failure = error
        await context.abort(failure.code, _short(str(failure)))
        raise AssertionError("abort raises")

    return answer


def _short(text: str) -> str:
    """Its beginning and its end: what callers send is quoted, and may be as long as they like."""
    half = _MOST_TEXT // 2
    return text if len(text) <= _MOST_TEXT else f"{text[:half]} ... {text[-half:]}"


async def _foreseen(work: Awaitable[_Reply]) -> _Reply:
    """The result or a ServingError; any other failure is logged, and the caller is told only that there was one."""
    try:
        return await work
    except ServingError:
        raise
    except Exception:
        event(logging.ERROR, "a request failed", traceback=True)
        raise Internal("internal error; the server's log says more") from None


def _why_cancelled(context: Context) -> grpc.StatusCode:
    """The caller's clock starts first, so its hanging up reaches us a little before our own end of the time."""
    remaining = context.time_remaining()
    is_late = remaining is not None and remaining < _CLOCK_SLACK_S
    return grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED


async def _all(futures: Sequence[Future[Arrays]]) -> list[Arrays]:
    """The results in order. When one fails, or the caller is gone, the others leave the scheduler's line."""
    try:
        return await asyncio.gather(*map(asyncio.wrap_future, futures))
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def _joined(pieces: list[Arrays]) -> Arrays:
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
