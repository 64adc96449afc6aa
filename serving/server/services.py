"""TensorFlow Serving's two gRPC services. Only translation: from messages to calls, from errors to status codes."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

import grpc
import numpy as np
from google.protobuf.any_pb2 import Any as AnyMessage
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from serving.server import requests
from serving.server.batching import Scheduler
from serving.server.engine import Arrays
from serving.server.errors import DeadlineExceeded, Internal, InvalidArgument, ServingError
from serving.server.logs import event
from serving.server.metrics import Metrics
from serving.server.models import Models

SIGNATURE_DEF = "signature_def"
_CLOCK_SLACK_S = 0.05

Context = grpc.aio.ServicerContext[Any, Any]
_Reply = TypeVar("_Reply")


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):  # type: ignore[misc]  # untyped base
    """Predict and GetModelMetadata; the calls for tf.Example (Classify, Regress, MultiInference) are UNIMPLEMENTED."""

    def __init__(self, models: Models, scheduler: Scheduler, metrics: Metrics) -> None:
        self._models, self._scheduler, self._metrics = models, scheduler, metrics
        self._active = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Waits until every request that was accepted is answered."""
        await self._idle.wait()

    async def Predict(self, request: predict_pb2.PredictRequest, context: Context) -> predict_pb2.PredictResponse:  # noqa: N802
        """Runs a signature."""
        return await self._answer("Predict", request.model_spec.name, self._predict(request, context), context)

    async def GetModelMetadata(  # noqa: N802
        self, request: get_model_metadata_pb2.GetModelMetadataRequest, context: Context
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """Names, dtypes and shapes of the signatures."""
        return await self._answer("GetModelMetadata", request.model_spec.name, self._metadata(request), context)

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
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        if not request.metadata_field:
            raise InvalidArgument(f"metadata_field is empty, expected {SIGNATURE_DEF!r}")
        if unknown := set(request.metadata_field) - {SIGNATURE_DEF}:
            raise InvalidArgument(
                f"metadata_field {', '.join(sorted(unknown))!r} is not supported, expected {SIGNATURE_DEF!r}"
            )
        with self._models.using(request.model_spec) as version:
            return metadata(version.model, version.number, version.servable.signature_def_map)

    async def _answer(self, api: str, model: str, work: Awaitable[_Reply], context: Context) -> _Reply:
        start = time.monotonic()
        status = grpc.StatusCode.CANCELLED
        self._active += 1
        self._idle.clear()
        try:
            reply = await translated(work, context)
            status = grpc.StatusCode.OK
            return reply
        except grpc.aio.AbortError:
            status = context.code()
            raise
        except asyncio.CancelledError:
            # The caller's clock starts first, so its hanging up reaches us a little before our own end of the time.
            remaining = context.time_remaining()
            if remaining is not None and remaining < _CLOCK_SLACK_S:
                status = grpc.StatusCode.DEADLINE_EXCEEDED
            raise
        finally:
            known = model if model in self._models.names else "unknown"  # callers must not make labels up
            self._metrics.requested(known, api, status.name, time.monotonic() - start)
            self._active -= 1
            if self._active == 0:
                self._idle.set()


class ModelService(model_service_pb2_grpc.ModelServiceServicer):  # type: ignore[misc]  # untyped base
    """GetModelStatus; HandleReloadConfigRequest is UNIMPLEMENTED: configuration changes by a restart."""

    def __init__(self, models: Models, *, about: Mapping[str, str]) -> None:
        self._models, self._about = models, tuple(about.items())

    async def GetModelStatus(  # noqa: N802
        self, request: get_model_status_pb2.GetModelStatusRequest, context: Context
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The states of a model's versions; what the server computes with is in the trailing metadata."""
        context.set_trailing_metadata(self._about)

        async def status() -> get_model_status_pb2.GetModelStatusResponse:
            return get_model_status_pb2.GetModelStatusResponse(
                model_version_status=self._models.statuses(request.model_spec)
            )

        return await translated(status(), context)


def metadata(model: str, version: int, signature_def_map: Any) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """What GetModelMetadata and its REST twin answer."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = model
    response.model_spec.version.value = version
    packed = AnyMessage()
    packed.Pack(signature_def_map)
    response.metadata[SIGNATURE_DEF].CopyFrom(packed)
    return response


async def translated(work: Awaitable[_Reply], context: Context) -> _Reply:
    """The result, or the call aborted with the error's status; what was not expected is logged, not told."""
    try:
        return await work
    except ServingError as error:
        failure: ServingError = error
    except Exception:
        event(logging.ERROR, "a request failed", traceback=True)
        failure = Internal("internal error; the server's log says more")
    await context.abort(failure.code, str(failure))
    raise AssertionError("abort raises")


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
