"""OpenTelemetry, when it is on: spans of a request and its stages, in the caller's trace, passed on to the model."""

import tomllib

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from gateway.app import create_app
from gateway.settings import Settings
from gateway.tracing import Tracing
from tests.fakes import FaultyModelServer
from tests.gateway.conftest import picture
from tests.gateway.processes import ROOT

CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def spans_of(server: FaultyModelServer, headers: dict[str, str]) -> dict[str, ReadableSpan]:
    exporter = InMemorySpanExporter()
    tracing = Tracing(exporter)
    app = create_app(Settings(backend=server.address), tracing=tracing)
    try:
        assert app.test_client().post("/v1/predict", data=picture(), headers=headers).status_code == 200
    finally:
        app.extensions["whence"].close()
    tracing.flush()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_and_its_stages_are_spans(server: FaultyModelServer) -> None:
    spans = spans_of(server, {})
    request = spans.pop("POST /v1/predict")
    assert request.attributes is not None
    assert request.attributes["http.response.status_code"] == 200
    assert set(spans) == {"wait", "read", "decode", "rpc", "respond"}
    assert all(span.parent and span.parent.span_id == request.context.span_id for span in spans.values())


def test_spans_are_in_the_callers_trace_and_the_model_server_in_theirs(server: FaultyModelServer) -> None:
    spans = spans_of(server, {"traceparent": CALLER})
    rpc = spans["rpc"]
    assert f"{rpc.context.trace_id:032x}" == CALLER.split("-")[1]
    assert server.calls[0].metadata["traceparent"] == f"00-{CALLER.split('-')[1]}-{rpc.context.span_id:016x}-01"


@pytest.mark.parametrize(("told", "name"), [(None, "whence-gateway"), ("mine", "mine")])
def test_spans_bear_the_services_name(
    server: FaultyModelServer, monkeypatch: pytest.MonkeyPatch, told: str | None, name: str
) -> None:
    if told:
        monkeypatch.setenv("OTEL_SERVICE_NAME", told)
    assert {span.resource.attributes["service.name"] for span in spans_of(server, {}).values()} == {name}


def test_the_gateways_lock_has_what_tracing_needs() -> None:
    """The image and `make run` are made of it: WHENCE_TRACING=true must not stop their start."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["tracing"]
    locked = (ROOT / "gateway/requirements.lock").read_text()
    for requirement in extra:
        assert f"\n{requirement.partition('>=')[0]}==" in locked
