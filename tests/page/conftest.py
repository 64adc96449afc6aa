"""The page in a real Chromium, served by the real gateway in front of a model server that says what the test wants."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright

from gateway import create_app
from gateway.settings import Settings
from gateway.wire import prediction_pb2 as pb
from serving import index
from serving.index import ArtObject
from tests.explaining import RELEASE, explaining
from tests.fakes import FaultyModelServer, floats, strings
from tests.listening import listening

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PICTURES = Path(__file__).parents[1] / "images"
# As root and without a network: no sandbox, and no look-ups of the browser's own.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_MS = 30_000  # a failing test waits so long; none that passes does, even on a machine with other work
expect.set_options(timeout=TIMEOUT_MS)
CULTURES = ("French", "Italian", "German", "British", "Spanish", "Chinese", "Japanese", "Greek")
SURE = (0.714, 0.121, 0.07, 0.052, 0.023, 0.011, 0.006, 0.003)
UNSURE = (0.29, 0.24, 0.15, 0.12, 0.1, 0.05, 0.03, 0.02)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.page)


@dataclass
class Service:
    """What stands behind the page, and what it says about every picture."""

    url: str
    server: FaultyModelServer
    decision: str = "accepted"
    probabilities: tuple[float, ...] = field(default=SURE)
    explains: bool = True

    def answer(self, request: pb.PredictRequest, context: grpc.ServicerContext) -> pb.PredictResponse:
        rows = request.inputs["images"].tensor_shape.dim[0].size
        spec = pb.ModelSpec(name=request.model_spec.name)
        spec.version.value = 7
        outputs = {
            "probabilities": floats(np.array([self.probabilities] * rows, np.float32)),
            "labels": strings(CULTURES * rows, (rows, len(CULTURES))),
            "decision": strings([self.decision] * rows, (rows,)),
            "thresholds": floats(np.array([[0.6, 0.0]] * rows, np.float32)),
        }
        if self.explains and request.model_spec.signature_name == "explain":
            shares = np.linspace(0, 1, rows * 14 * 14 * len(CULTURES), dtype=np.float32)
            outputs["embedding"] = floats(np.array([[0.6, 0.8]] * rows, np.float32))
            outputs["heatmaps"] = floats(shares.reshape(rows, 14, 14, len(CULTURES)))
            outputs["provenance"] = strings([json.dumps({"release_sha256": RELEASE})] * rows, (rows,))
        return pb.PredictResponse(model_spec=spec, outputs=outputs)


@pytest.fixture
def service() -> Iterator[Service]:
    with FaultyModelServer() as server:
        app = create_app(Settings(backend=server.address))
        with listening(app) as url:
            service = Service(url, server)
            server.behaviour = service.answer
            yield service
        app.extensions["whence"].close()


@contextmanager
def serving_objects(folder: Path, objects: Sequence[ArtObject], **settings: Any) -> Iterator[Service]:
    """A model whose cultures and maps are the picture's colour channels, and an index of `objects`, one in each."""
    (folder / "7").mkdir()
    axes = np.eye(3, dtype=np.float32)[np.arange(len(objects)) % 3]
    index.write(folder / "7", objects, axes, model_name="culture", model_version=7, release_sha256=RELEASE)
    with FaultyModelServer(behaviour=explaining) as server:
        app = create_app(Settings(backend=server.address, index=str(folder), **settings))
        with listening(app) as url:
            yield Service(url, server)
        app.extensions["whence"].close()
        if "feedback" in app.extensions:
            app.extensions["feedback"].close()


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium, or name one in CHROMIUM")
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
def browser(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    yield browser
    browser.close()


@pytest.fixture
def context(browser: Browser, service: Service) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=service.url, reduced_motion="reduce")
    context.set_default_timeout(TIMEOUT_MS)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    page = context.new_page()
    page.goto("/")
    return page
