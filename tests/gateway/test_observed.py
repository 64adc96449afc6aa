"""Metrics and logs tell what happened, and nothing about what was in a picture."""

import json
import logging
import re
from collections.abc import Callable

import grpc
import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway.logs import JsonFormatter
from tests.fakes import FaultyModelServer, changed, fail, strings, with_output
from tests.gateway.conftest import picture
from tests.gateway.processes import ROOT


def metrics(http: FlaskClient) -> dict[str, float]:
    lines = http.get("/metrics").text.splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


DOCUMENTED = [
    "whence_http_requests_total",
    "whence_http_request_duration_seconds",
    "whence_stage_duration_seconds",
    "whence_inflight_requests",
    "whence_rejected_total",
    "whence_rpc_total",
    "whence_rpc_retries_total",
    "whence_retry_budget_ratio",
    "whence_breaker_transitions_total",
    "whence_backend_ready",
    "whence_image_bytes",
    "whence_image_megapixels",
    "whence_predictions_total",
    "whence_confidence",
    "whence_model_info",
]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_every_documented_metric_is_there(http: FlaskClient, name: str) -> None:
    assert f"# TYPE {name.removesuffix('_total')}" in http.get("/metrics").text.replace("_total ", " ")


def test_a_prediction_is_counted(http: FlaskClient, server: FaultyModelServer) -> None:
    server.script(with_output("decision", strings(["abstained"], (1,))))
    http.post("/v1/predict", data=picture())
    seen = metrics(http)
    assert seen['whence_http_requests_total{code="200",method="POST",route="/v1/predict"}'] == 1
    assert seen['whence_predictions_total{culture="red",decision="abstained"}'] == 1
    assert seen['whence_rpc_total{grpc_code="OK"}'] == 1
    assert seen['whence_model_info{name="culture",version="7"}'] == 1
    assert (
        seen["whence_image_bytes_count"]
        == seen["whence_image_megapixels_count"]
        == seen["whence_confidence_count"]
        == 1
    )
    assert seen["whence_backend_ready"] == 1
    for stage in ("read", "decode", "wait", "rpc", "respond"):
        assert seen[f'whence_stage_duration_seconds_count{{stage="{stage}"}}'] == 1


def test_a_failure_is_counted(http: FlaskClient, server: FaultyModelServer) -> None:
    server.script(fail(grpc.StatusCode.INTERNAL))
    http.post("/v1/predict", data=picture())
    http.post("/v1/predict", data=b"text")
    seen = metrics(http)
    assert seen['whence_rpc_total{grpc_code="INTERNAL"}'] == 1
    assert seen['whence_rejected_total{reason="broken-contract"}'] == 1
    assert seen['whence_rejected_total{reason="unsupported-media"}'] == 1


def test_labels_do_not_grow_with_what_clients_make_up(http: FlaskClient) -> None:
    for at in range(20):
        http.get(f"/nowhere/{at}")
        http.open("/v1/predict", method=f"MADEUP{at}")
    ours = [line for line in metrics(http) if line.startswith("whence_http_requests_total{")]
    assert sorted(ours) == [
        'whence_http_requests_total{code="404",method="GET",route="unmatched"}',
        'whence_http_requests_total{code="405",method="other",route="unmatched"}',
    ]


def test_a_former_version_stays_with_zero(http: FlaskClient, server: FaultyModelServer) -> None:
    http.post("/v1/predict", data=picture())
    server.script(changed(lambda response: setattr(response.model_spec.version, "value", 8)))
    http.post("/v1/predict", data=picture())
    seen = metrics(http)
    assert seen['whence_model_info{name="culture",version="7"}'] == 0
    assert seen['whence_model_info{name="culture",version="8"}'] == 1


def test_two_applications_do_not_share_metrics(make_app: Callable[..., Flask]) -> None:
    first, second = make_app().test_client(), make_app().test_client()
    first.get("/healthz")
    assert 'route="/healthz"' not in second.get("/metrics").text


def line_of(caplog: pytest.LogCaptureFixture) -> dict[str, object]:
    (record,) = (record for record in caplog.records if record.name == "whence.access")
    line: dict[str, object] = json.loads(JsonFormatter().format(record))
    return line


def test_a_request_is_one_line(http: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "whence")
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    http.post("/v1/predict", data=picture(), headers={"X-Request-ID": "me", "traceparent": trace})
    line = line_of(caplog)
    assert (line["request_id"], line["route"], line["status"]) == ("me", "/v1/predict", 200)
    assert (line["model_version"], line["cultures"]) == (7, ["red"])
    assert line["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert {"read", "decode", "wait", "rpc"} <= set(line["stages_s"])  # type: ignore[call-overload]


def test_a_probe_that_is_answered_is_no_line(http: FlaskClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "whence")
    http.get("/healthz")
    assert not [record for record in caplog.records if record.name == "whence.access"]


def test_an_unexpected_error_is_told_without_internals(
    make_app: Callable[..., Flask], caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app()

    @app.get("/break")
    def fall() -> str:
        raise RuntimeError("the password is swordfish")

    answer = app.test_client().get("/break", headers={"X-Request-ID": "me"})
    assert (answer.status_code, answer.get_json()["type"]) == (500, "/problems/internal")
    assert "swordfish" not in answer.text
    lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
    assert [line["request_id"] for line in lines if "swordfish" in line.get("exception", "")] == ["me"]


def test_the_objectives_count_every_route_that_answers_pictures(make_app: Callable[..., Flask]) -> None:
    rules = (ROOT / "k8s/monitoring/rules.yaml").read_text()
    (counted,) = set(re.findall(r'route=~"([^"]+)"', rules))
    routes = {(rule.rule, "POST" in (rule.methods or ())) for rule in make_app().url_map.iter_rules()}
    assert {route for route, asks in routes if re.fullmatch(counted, route)} == {
        route for route, asks in routes if asks
    }
