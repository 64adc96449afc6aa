"""Puts the parts together, from the first port to the last request."""

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from tensorflow_serving.apis import (
    model_service_pb2,
    model_service_pb2_grpc,
    prediction_service_pb2,
    prediction_service_pb2_grpc,
)

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

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),  # unlimited, as in TensorFlow Serving: the signature bounds what is copied
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake, not a way to share it
)
_REFLECTED: Final = (
    prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
    health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
    reflection.SERVICE_NAME,
)


async def serve(options: Options, engine: Engine) -> int:
    """Serves until SIGTERM or SIGINT.

    Returns:
        The exit status: 0, or 1 when accepted requests had to be cut off.

    Raises:
        ConfigError: A port cannot be had.
    """
    loop = asyncio.get_running_loop()
    stop, cut_short = asyncio.Event(), asyncio.Event()
    changed = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, lambda: (cut_short if stop.is_set() else stop).set())

    metrics = Metrics()
    threads = f"{options.batching.threads}x{options.intra_op}"
    metrics.started(engine.name, engine.precision, threads)

    def on_change() -> None:
        loop.call_soon_threadsafe(changed.set)

    models = Models(
        options.models,
        engine,
        policy=options.load,
        metrics=metrics,
        on_change=on_change,
    )
    scheduler = Scheduler(options.batching, metrics)
    health = Health(models.names)
    await health.update(None)

    server = grpc.aio.server(options=[*_OPTIONS, *options.grpc_arguments])
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        PredictionService(models, scheduler, metrics), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(models), server)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, server)
    reflection.enable_server_reflection(_REFLECTED, server)
    port = _bind(server, options)
    rest = _rest(options, models, metrics)
    await server.start()
    event(
        logging.INFO, "listening", grpc=f"{options.host}:{port}", rest=f"{options.host}:{rest.port}" if rest else "off",
        engine=engine.name, precision=engine.precision, threads=threads,
    )  # fmt: skip
    models.start()
    following = asyncio.create_task(_follow(models, health, changed))

    await stop.wait()
    started = time.monotonic()
    event(logging.INFO, "stopping", drain_s=options.drain_s, grace_s=options.grace_s)
    await health.stop()
    await _first(cut_short.wait(), asyncio.sleep(options.drain_s))
    stopping = asyncio.create_task(server.stop(options.grace_s))
    await _first(cut_short.wait(), asyncio.shield(stopping))
    if not stopping.done():
        await server.stop(0)
    left = max(0.0, options.drain_s + options.grace_s - (time.monotonic() - started))
    finished = await asyncio.to_thread(scheduler.close, 0.0 if cut_short.is_set() else left)
    following.cancel()
    if rest:
        rest.stop()
    event(logging.INFO if finished else logging.WARNING, "stopped", requests="finished" if finished else "cut off")
    return 0 if finished else 1


def _bind(server: grpc.aio.Server, options: Options) -> int:
    host = f"[{options.host}]" if ":" in options.host else options.host
    try:
        return server.add_insecure_port(f"{host}:{options.port}")
    except RuntimeError:
        raise ConfigError(f"--port is {options.port}, expected one that is free on {options.host}") from None


def _rest(options: Options, models: Models, metrics: Metrics) -> RestServer | None:
    if options.rest_port is None:
        return None
    try:
        rest = RestServer((options.host, options.rest_port), models, metrics, options.prometheus_path)
    except OSError as error:
        expected = f"expected one that is free on {options.host}"
        raise ConfigError(f"--rest_api_port is {options.rest_port}, {expected} ({error.strerror})") from None
    rest.start()
    return rest


async def _follow(models: Models, health: Health, changed: asyncio.Event) -> None:
    """Keeps health equal to the models' state."""
    while True:
        await changed.wait()
        changed.clear()
        await health.update(models)


async def _first(*awaitables: Awaitable[object]) -> None:
    """Waits until one of them is done and cancels the others."""
    tasks = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
