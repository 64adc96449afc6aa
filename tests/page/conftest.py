"""The page in a real Chromium, served by a stand-in that speaks the documented API."""

import os
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flask import Flask, Response, jsonify, request
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from werkzeug.serving import make_server

from gateway.page import page as page_blueprint
from serving import images

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
CULTURES = ("French", "Italian", "German", "British", "Spanish", "Chinese", "Japanese", "Greek")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.page)


@dataclass
class Service:
    """The service behind the page: what it will answer, set by each test."""

    url: str = ""
    decision: str = "accepted"
    probabilities: tuple[float, ...] = (0.714, 0.121, 0.07, 0.052, 0.023, 0.011, 0.006, 0.003)
    received: list[bytes] = field(default_factory=list)


@pytest.fixture
def service() -> Iterator[Service]:
    service = Service()
    app = Flask("stand-in", static_folder=None)
    app.register_blueprint(page_blueprint)

    @app.post("/v1/predict")
    def predict() -> tuple[Response, int]:
        service.received.append(request.get_data())
        try:
            images.decode(service.received[-1])
        except images.ImageError as error:
            title = "The picture is broken"
            return jsonify(type="/problems/x", title=title, status=422, detail=str(error), request_id="abc123"), 422
        top = [{"culture": c, "probability": p} for c, p in zip(CULTURES, service.probabilities, strict=True)]
        answer = {**top[0], "decision": service.decision, "top": top}
        return jsonify(request_id="abc123", model={"name": "culture", "version": "7"}, predictions=[answer]), 200

    @app.after_request
    def secure(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = "default-src 'self'; img-src 'self' blob: data:"
        return response

    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    service.url = f"http://127.0.0.1:{server.server_port}"
    yield service
    server.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium, or name one in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def context(browser: Browser, service: Service) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=service.url, reduced_motion="reduce")
    context.set_default_timeout(10_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    page = context.new_page()
    page.goto("/")
    return page
