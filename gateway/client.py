"""The client of the model servers: the only file that imports grpc.

Channels, deadlines, second attempts, and the translation of gRPC's errors into ours.
"""

import logging
import math
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc
import numpy as np
from numpy.typing import NDArray

from gateway import replies, wire
from gateway.backends import SILENCE_S, Backend, Backends
from gateway.context import Deadline
from gateway.errors import (
    ClientGone,
    ContractBroken,
    Expired,
    ModelTimeout,
    ModelUnavailable,
    NotFound,
    NotLoaded,
    Problem,
)
from gateway.hangups import hang_ups
from gateway.metrics import Metrics
from gateway.retries import RetryBudget
from gateway.settings import Settings, read_pem
from gateway.tensors import to_proto
from gateway.wire import prediction_pb2 as pb
from serving import contract

log = logging.getLogger("whence.client")

MIB: Final = 1024 * 1024
STATUS_TIMEOUT_S: Final = 1.0  # of one server: it computes nothing for that

# Unknown names are ignored silently by gRPC: tests/gateway/test_backends.py looks each one up in grpcio itself.
CHANNEL_OPTIONS: Final[tuple[tuple[str, int], ...]] = (
    # 32 pictures are 4.8 MB; replies are small, unless a server goes mad.
    ("grpc.max_send_message_length", 64 * MIB),
    ("grpc.max_receive_message_length", 4 * MIB),
    # A server that comes back is found again within a second, not two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 2000),  # also the longest wait for one connection
    ("grpc.max_reconnect_backoff_ms", 1000),
    # Servers close connections that ping more often than every five minutes. The timeout becomes TCP_USER_TIMEOUT,
    # which finds a server behind a broken network after that long, as soon as there is anything to send.
    ("grpc.keepalive_time_ms", 300_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.enable_retries", 0),  # second attempts are made here, on another server
    ("grpc.use_local_subchannel_pool", 1),  # closing a channel closes its connection
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.enable_http_proxy", 0),  # http_proxy in the environment is not meant for the model server
)

_PROBLEMS: Final[dict[grpc.StatusCode, tuple[type[Problem], str]]] = {
    grpc.StatusCode.UNAVAILABLE: (ModelUnavailable, "the model server is away or full"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (ModelUnavailable, "the model server is full"),
    grpc.StatusCode.NOT_FOUND: (NotLoaded, "the model is not loaded"),
    grpc.StatusCode.CANCELLED: (ModelUnavailable, "the model server gave up the request, as one that stops does"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (ModelTimeout, "the model did not answer in time"),
}
# Part of what TensorFlow Serving says when its batching queue is full. It is alive: no reason to leave it alone, nor
# to send it even more.
_QUEUE_FULL: Final = "queue"
# Part of what gRPC says of messages beyond either side's limit: to ask again is no help.
_TOO_LONG: Final = "larger than max"


def problem_of(error: grpc.RpcError) -> Problem:
    """What an error of gRPC means for our client."""
    code = error.code()
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LONG in (error.details() or ""):
        return ContractBroken("a message to or from the model server is too long")
    kind, detail = _PROBLEMS.get(code, (ContractBroken, f"the model server answered {code.name}"))
    return kind(detail)


class Connection:
    """A channel to one model server."""

    def __init__(self, address: str, host: str, settings: Settings) -> None:
        target = f"{'ipv6' if address.startswith('[') else 'ipv4'}:{address}"
        options = (*CHANNEL_OPTIONS, ("grpc.default_authority", host))  # the name that a certificate has to bear
        if settings.backend_ca_file:
            self._channel = grpc.secure_channel(target, _credentials(settings), options=options)
        else:
            self._channel = grpc.insecure_channel(target, options=options)
        self._status_request = pb.GetModelStatusRequest(model_spec=pb.ModelSpec(name=settings.model_name))
        self.predict = self._channel.unary_unary(
            wire.PREDICT,
            request_serializer=pb.PredictRequest.SerializeToString,
            response_deserializer=pb.PredictResponse.FromString,
        )
        self._get_status = self._channel.unary_unary(
            wire.GET_MODEL_STATUS,
            request_serializer=pb.GetModelStatusRequest.SerializeToString,
            response_deserializer=pb.GetModelStatusResponse.FromString,
        )

    def versions(self, timeout_s: float) -> dict[int, str]:
        """State of each version of the model: {1: "AVAILABLE"}. Raises grpc.RpcError."""
        response = self._get_status(self._status_request, timeout=timeout_s)
        return {each.version: _state_name(each.state) for each in response.model_version_status}

    def well(self) -> bool:
        """Whether the server has the model."""
        try:
            return "AVAILABLE" in self.versions(STATUS_TIMEOUT_S).values()
        except grpc.RpcError:
            return False

    def close(self) -> None:
        """Close the channel and cut off calls under way."""
        self._channel.close()


def _credentials(settings: Settings) -> grpc.ChannelCredentials:
    """TLS to the model servers, mutual when there is a certificate of ours. Raises SettingsError."""
    authority, key, certificate = (
        read_pem(settings, name) for name in ("backend_ca_file", "backend_key_file", "backend_cert_file")
    )
    return grpc.ssl_channel_credentials(authority, key, certificate)


def _state_name(state: int) -> str:
    try:
        return pb.ModelVersionStatus.State.Name(state)  # type: ignore[arg-type]
    except ValueError:
        return "UNKNOWN"


class PredictionClient:
    """Asks the model servers. Safe to use from many threads.

    Nothing of gRPC is made before the first use in a process: it does not survive a fork.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, *, resolve: Callable[[str], set[str]] | None = None
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._resolve = {"resolve": resolve} if resolve else {}
        self._budget = RetryBudget()
        self.answered = -math.inf  # time.monotonic() of the last good answer
        self._lock = threading.Lock()
        self._pool: tuple[int, Backends[Connection]] | None = None  # with the id of the process that made it

    @property
    def backends(self) -> Backends[Connection]:
        """The pool of this process."""
        with self._lock:
            if self._pool is None or self._pool[0] != os.getpid():
                pool = Backends(
                    self._settings.backend.split(","),
                    lambda address, host: Connection(address, host, self._settings),
                    metrics=self._metrics,
                    resolve_s=self._settings.resolve_s,
                    **self._resolve,
                )
                self._pool = os.getpid(), pool
            return self._pool[1]

    @property
    def well(self) -> bool:
        """Whether there is a server that gets requests now; others rest after failures."""
        return any(each.breaker.closed for each in self.backends.all())

    def predict(
        self,
        images: NDArray[np.uint8],
        *,
        deadline: Deadline,
        metadata: tuple[tuple[str, str], ...] = (),
        signature: str = contract.SERVING,
        version: int | None = None,
        client: socket.socket | None = None,
    ) -> replies.Reply:
        """The model's answer to uint8 [N, 224, 224, 3], RGB; without `version` that of the label in the settings.

        Gives up when `client` hangs up. Raises ModelUnavailable, ModelTimeout, Expired, ClientGone, ContractBroken, or
        NotFound for a `version` that is not there.
        """
        spec = pb.ModelSpec(name=self._settings.model_name, signature_name=signature)
        if version is not None:
            spec.version.value = version
        elif self._settings.model_label:
            spec.version_label = self._settings.model_label
        request = pb.PredictRequest(model_spec=spec, inputs={contract.INPUT: to_proto(images)})
        self._budget.deposit()
        self._metrics.retry_budget.set(self._budget.ratio)

        def read(response: pb.PredictResponse) -> replies.Reply:
            name = self._settings.model_name
            reply = replies.read(response, rows=len(images), model_name=name, signature=signature)
            if version not in (None, reply.version):
                raise ContractBroken(f"version {reply.version} answered instead of {version}")
            return reply

        try:
            reply = self._ask(_Question(request, deadline, metadata, client, read))
        except NotLoaded as problem:
            if version is None:
                raise
            raise NotFound(f"there is no version {version}") from problem
        self._metrics.saw_version(self._settings.model_name, reply.version)
        self.answered = time.monotonic()
        return reply

    def versions(self, deadline: Deadline) -> dict[int, str]:
        """State of each version on the first server that has one AVAILABLE, else on any.

        Raises ModelUnavailable or ModelTimeout when no server answers, ContractBroken for a status nobody expects.
        """
        found: dict[int, str] | None = None
        problem: Problem = ModelUnavailable("no model server is known")
        for backend in sorted(self.backends.all(), key=lambda each: not each.breaker.closed):
            asked = time.monotonic()
            try:
                found = backend.connection.versions(min(STATUS_TIMEOUT_S, deadline.left_s))
            except grpc.RpcError as error:
                problem = problem_of(error)
                if _elsewhere(error):  # where nobody asks for predictions, nothing else would tell that it is away
                    self.backends.failed(backend, asked)
                continue
            if "AVAILABLE" in found.values():
                return found
        if found is None:
            raise problem
        return found

    def close(self) -> None:
        """Close all connections of this process."""
        with self._lock:
            if self._pool and self._pool[0] == os.getpid():
                self._pool[1].close()
            self._pool = None

    def _ask(self, question: "_Question") -> replies.Reply:
        """Predict on one server, and once more on another where that can help."""
        pool = self.backends
        with pool.lend() as first:
            if first is None:
                raise ModelUnavailable("no model server is well at the moment")
            try:
                return self._call(pool, first, question)
            except grpc.RpcError as error:
                if not _elsewhere(error):
                    raise problem_of(error) from error
                failure = error
        with pool.lend(avoid=first) as second:
            late = question.deadline.passed
            if second is None or late or not self._budget.withdraw():
                outcome = "no_backend" if second is None else "no_time" if late else "no_budget"
                self._metrics.rpc_retries.labels(outcome).inc()
                raise problem_of(failure) from failure
            try:
                reply = self._call(pool, second, question)
            except grpc.RpcError as error:
                self._metrics.rpc_retries.labels("failure").inc()
                raise problem_of(error) from error
        self._metrics.rpc_retries.labels("success").inc()
        return reply

    def _call(self, pool: Backends[Connection], backend: Backend[Connection], question: "_Question") -> replies.Reply:
        """Predict on `backend`, and count what that tells of it.

        Raises grpc.RpcError, Expired, ClientGone or ContractBroken.
        """
        asked, left_s = time.monotonic(), question.deadline.left_s
        if left_s <= 0:
            raise Expired
        try:
            call = backend.connection.predict.future(question.request, timeout=left_s, metadata=question.metadata)
            response = _wait(call, question.client)
        except grpc.RpcError as error:
            code = error.code()
            self._metrics.rpcs.labels(code.name).inc()
            # A client that gives its request hardly any time proves nothing against the server.
            if _elsewhere(error) or (code is grpc.StatusCode.DEADLINE_EXCEEDED and left_s >= SILENCE_S):
                pool.failed(backend, asked)
            elif code is not grpc.StatusCode.DEADLINE_EXCEEDED:
                pool.refused(backend)
            raise
        self._metrics.rpcs.labels("OK").inc()
        pool.succeeded(backend)
        try:
            return question.read(response)
        except ContractBroken:
            pool.refused(backend)
            raise


@dataclass(frozen=True)
class _Question:
    """A request of ours on its way to one server or a second."""

    request: pb.PredictRequest
    deadline: Deadline
    metadata: tuple[tuple[str, str], ...]
    client: socket.socket | None  # who waits for the answer
    read: Callable[[pb.PredictResponse], replies.Reply]  # raises ContractBroken


def _wait(call: "grpc.Future[pb.PredictResponse]", client: socket.socket | None) -> pb.PredictResponse:
    """The response, or ClientGone when the client hangs up: the server is then told to stop. Raises grpc.RpcError."""
    done = threading.Event()  # call.result() wakes its thread ten times a second to look
    call.add_done_callback(lambda _: done.set())
    with hang_ups.told(client, call.cancel):
        done.wait()
    if call.cancelled():
        raise ClientGone
    return call.result()


def _elsewhere(error: grpc.RpcError) -> bool:
    """Whether another server may do better: this one is gone or going (it cancels what it has), as opposed to full."""
    gone = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    return gone and _QUEUE_FULL not in (error.details() or "")
