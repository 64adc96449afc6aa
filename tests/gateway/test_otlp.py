"""Traces on their way out: a real gateway, and a collector that listens to OTLP over HTTP; or does not."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.fakes import FaultyModelServer
from tests.gateway.conftest import picture
from tests.gateway.processes import ROOT, Gateway

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CALLER = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Collector(ThreadingHTTPServer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        super().__init__(("127.0.0.1", 0), _Export)


class _Export(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            named = {each.key: each.value.string_value for each in group.resource.attributes}
            self.server.services.add(named["service.name"])
            self.server.spans += [span for scope in group.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quietly."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def telling(port: int) -> dict[str, str]:
    """The standard variables that name a collector; spans go out every 0.1 s instead of 5."""
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "100"}


def test_the_spans_of_a_request_reach_the_collector_in_the_callers_trace(
    start: Callable[..., Gateway], server: FaultyModelServer, collector: Collector
) -> None:
    gateway = start(tracing=True, env=telling(collector.server_port))
    assert gateway.http.post("/v1/predict", content=picture(), headers=CALLER).status_code == 200
    end = time.monotonic() + 20
    while not (spans := {span.name: span for span in collector.spans if span.trace_id.hex() == TRACE}).keys() >= {
        "POST /v1/predict", "read", "decode", "wait", "rpc", "respond",
    }:  # fmt: skip
        assert time.monotonic() < end, spans.keys()
        time.sleep(0.05)
    request = spans.pop("POST /v1/predict")
    assert request.parent_span_id.hex() == PARENT
    assert {span.parent_span_id for span in spans.values()} == {request.span_id}
    assert server.calls[0].metadata["traceparent"] == f"00-{TRACE}-{spans['rpc'].span_id.hex()}-01"
    assert collector.services == {"whence-gateway"}


def test_spans_that_wait_when_the_gateway_stops_are_sent(start: Callable[..., Gateway], collector: Collector) -> None:
    gateway = start(tracing=True, env=telling(collector.server_port) | {"OTEL_BSP_SCHEDULE_DELAY": "60000"})
    assert gateway.http.post("/v1/predict", content=picture(), headers=CALLER).status_code == 200
    assert gateway.stop() == 0
    assert "rpc" in {span.name for span in collector.spans}


@contextmanager
def nobody() -> Iterator[int]:
    """A port that refuses connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


@contextmanager
def silence() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as sock:
        yield sock.getsockname()[1]


@pytest.mark.parametrize("away", [nobody, silence])
def test_a_collector_that_is_away_neither_slows_answers_nor_keeps_the_gateway_from_stopping(
    start: Callable[..., Gateway], away: Callable[[], AbstractContextManager[int]]
) -> None:
    with away() as port:
        gateway = start(tracing=True, env=telling(port))
        slowest_s = 0.0
        for _ in range(30):
            begin = time.monotonic()
            assert gateway.http.post("/v1/predict", content=picture(), headers=CALLER).status_code == 200
            slowest_s = max(slowest_s, time.monotonic() - begin)
        gateway.http.close()  # or gunicorn waits for the kept connection
        begin = time.monotonic()
        assert gateway.stop() == 0
        print(f"slowest answer {slowest_s:.3f} s, stopped in {time.monotonic() - begin:.1f} s")
        assert slowest_s < 3
        assert time.monotonic() - begin < 8


def test_tracing_without_its_extra_stops_the_start() -> None:
    """In a process where the exporter cannot be imported."""
    script = (
        "import sys; sys.modules['opentelemetry.exporter'] = None\n"
        "from gateway.app import create_app; from gateway.settings import Settings; create_app(Settings(tracing=True))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "WHENCE_TRACING is true, expected the extra `tracing` to be installed" in done.stderr
