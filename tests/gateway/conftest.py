"""The gateway with a model server that does what the test says."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from gateway import create_app, lifecycle
from gateway.settings import Settings
from tests.fakes import FaultyModelServer
from tests.gateway.processes import Gateway
from tests.listening import listening

RED, GREEN, BLUE = (250, 5, 5), (5, 250, 5), (5, 5, 250)


def picture(colour: tuple[int, int, int] = RED, format: str = "JPEG", size: tuple[int, int] = (64, 48)) -> bytes:
    """A picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, format)
    return file.getvalue()


def noise(size: tuple[int, int], format: str = "JPEG", **options: object) -> bytes:
    """A picture that does not compress well."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


@pytest.fixture
def server() -> Iterator[FaultyModelServer]:
    with FaultyModelServer() as server:
        yield server


@pytest.fixture
def make_app(server: FaultyModelServer) -> Iterator[Callable[..., Flask]]:
    """create_app with settings of the test; its connections are closed afterwards."""
    apps: list[Flask] = []

    def make(**settings: object) -> Flask:
        values = {"backend": server.address} | settings
        apps.append(create_app(Settings(**values)))  # type: ignore[arg-type]
        return apps[-1]

    yield make
    for app in apps:
        app.extensions["whence"].close()
    lifecycle.draining.clear()


@pytest.fixture
def http(make_app: Callable[..., Flask]) -> FlaskClient:
    """A client of the gateway with default settings, in this process."""
    return make_app().test_client()


@pytest.fixture
def start(tmp_path: Path, server: FaultyModelServer) -> Iterator[Callable[..., Gateway]]:
    """Start a gateway in a process of its own; it is stopped afterwards, without the pause for load balancers."""
    running: list[Gateway] = []

    def start(**settings: Any) -> Gateway:
        values: dict[str, Any] = {"backend": server.address, "drain_s": 0} | settings
        running.append(Gateway(tmp_path / f"gateway-{len(running)}.log", **values))
        return running[-1]

    yield start
    for gateway in running:
        gateway.http.close()  # first, or gunicorn waits two seconds for more requests on kept-alive connections
        gateway.stop()


@pytest.fixture
def url(make_app: Callable[..., Flask]) -> Iterator[str]:
    with listening(make_app()) as url:
        yield url


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Nine pictures, red, green and blue in turn."""
    folder = tmp_path / "album"
    folder.mkdir()
    for number in range(9):
        (folder / f"{number}.jpg").write_bytes(picture((RED, GREEN, BLUE)[number % 3]))
    return folder
