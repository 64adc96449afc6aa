"""Puts the parts together, from the first port to the last request."""

import asyncio
import logging
import signal
from collections.abc import Awaitable
from contextlib import suppress
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import model_service_pb2, prediction_service_pb2

from serving.server.batching import Scheduler
from serving.server.config import ConfigError
from serving.server.engine import Engine
from serving.server.flags import Options
from serving.server.health import Health
from serving.server.logs import event
from serving.server.metrics import Metrics
from serving.server.models import Models
from serving.server.rest import RestServer
from serving.server.services import ModelService, PredictionService

_ARGUMENTS: Final = {
    "grpc.max_receive_message_length": -1,  # unlimited, as in TensorFlow Serving: the signature bounds what is copied
    "grpc.max_send_message_length": -1,
    "grpc.so_reuseport": 0,  # a second server on the same port is a mistake, not a way to share it
}
_REFLECTED: Final = (
    prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
    reflection.SERVICE_NAME,
)
_ACCEPT_S: Final = 0.1  # for requests that arrived just before the door closed to reach us
_FLUSH_S: Final = 1.0  # for the last replies to leave, once they are made


async def serve(options: Options, engine: Engine) -> int:
    """Serves until SIGTERM or SIGINT; a second signal ends the waiting for requests that are still running.

    Returns:
        The exit status: 0, or 1 when accepted requests had to be cut off.

    Raises:
        ConfigError: A port cannot be had.
    """
    first, second = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, lambda: (second if first.is_set() else first).set())
    server = Server(options, engine)
    await server.start()
    await first.wait()
    return 0 if await server.stop(cut_short=second) else 1


class Server:
    """The whole server. Made, started and stopped inside one event loop.

    Args:
        options: What the command line said.
        engine: What computes.
    """

    def __init__(self, options: Options, engine: Engine) -> None:
        self._options, self._engine = options, engine
        self._changed = asyncio.Event()
        loop = asyncio.get_running_loop()

        def on_change() -> None:
            with suppress(RuntimeError):  # the loop is closed: a run that was cut off has ended after all
                loop.call_soon_threadsafe(self._changed.set)

        self._metrics = Metrics()
        self._models = Models(
            options.models, engine,
            policy=options.load, batching=options.batching, metrics=self._metrics, on_change=on_change,
        )  # fmt: skip
        self._scheduler = Scheduler(options.batching, self._metrics)
        self._health = Health(self._models.names)
        self._prediction = PredictionService(self._models, self._scheduler, self._metrics)
        arguments = _ARGUMENTS | dict(options.grpc_arguments)
        self._grpc = grpc.aio.server(options=list(arguments.items()))
        self._rest: RestServer | None = None
        self._following: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        """Opens the ports, then begins to load.

        Raises:
            ConfigError: A port cannot be had.
        """
        options, engine = self._options, self._engine
        threads = f"{options.batching.threads}x{options.intra_op}"
        if options.batching.narrow_runs > 1:
            threads += f" or {options.batching.narrow_runs}x{options.narrow_intra_op}"
        self._metrics.started(engine.name, engine.precision, threads)
        self._register()
        await self._health.update(None)
        self.port = self._bind()
        self._rest = self._open_rest()
        await self._grpc.start()
        event(
            logging.INFO, "listening", grpc=f"{options.host}:{self.port}",
            rest=f"{options.host}:{options.rest_port}" if self._rest else "off",
            engine=engine.name, precision=engine.precision, threads=threads,
        )  # fmt: skip
        self._models.start()
        self._following = asyncio.create_task(self._follow())

    async def stop(self, *, cut_short: asyncio.Event) -> bool:
        """Says NOT_SERVING, drains, finishes what was accepted; True when nothing had to be cut off."""
        options = self._options
        event(logging.INFO, "stopping", drain_s=options.drain_s, grace_s=options.grace_s)
        await self._health.stop()
        await _first(cut_short.wait(), asyncio.sleep(options.drain_s))
        stopping = asyncio.create_task(self._grpc.stop(options.grace_s + _FLUSH_S))
        await asyncio.sleep(_ACCEPT_S)
        # The gRPC server itself would also wait for callers that only watch health or hold reflection open.
        finished = await _first(self._prediction.idle(), cut_short.wait(), asyncio.sleep(options.grace_s)) == 0
        await self._grpc.stop(_FLUSH_S if finished else 0)
        await stopping
        if self._following:
            self._following.cancel()
        self._scheduler.close()
        self._models.close()
        if self._rest:
            self._rest.stop()
        event(logging.INFO if finished else logging.WARNING, "stopped", requests="finished" if finished else "cut off")
        return finished

    def _register(self) -> None:
        server = self._grpc
        about = {"whence-engine": self._engine.name, "whence-precision": self._engine.precision}
        status = ModelService(self._models, about=about)
        server.add_generic_rpc_handlers((self._prediction.handler(), status.handler()))
        health_pb2_grpc.add_HealthServicer_to_server(self._health.servicer, server)
        reflection.enable_server_reflection(_REFLECTED, server)

    def _bind(self) -> int:
        host, port = self._options.host, self._options.port
        try:
            return self._grpc.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except RuntimeError:
            raise ConfigError(f"--port is {port}, expected one that is free on {host}") from None

    def _open_rest(self) -> RestServer | None:
        host, port = self._options.host, self._options.rest_port
        if port is None:
            return None
        try:
            rest = RestServer((host, port), self._models, self._metrics, self._options.prometheus_path)
        except OSError as error:
            expected = f"expected one that is free on {host}"
            raise ConfigError(f"--rest_api_port is {port}, {expected} ({error.strerror})") from None
        rest.start()
        return rest

    async def _follow(self) -> None:
        """Keeps health equal to the models' state."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await self._health.update(self._models)


async def _first(*awaitables: Awaitable[object]) -> int:
    """Waits until one of them is done, cancels the others, and says which it was."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    done = [task.done() for task in tasks]
    for task in tasks:
        task.cancel()
    return done.index(True)
