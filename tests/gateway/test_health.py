"""/healthz tells of the process, /readyz of the whole way to the model."""

import threading
import time
from collections.abc import Callable

import grpc
import pytest
from flask import Flask
from flask.testing import FlaskClient

from gateway import breaker, health, lifecycle
from tests.fakes import FaultyModelServer, Hang, fail
from tests.gateway.conftest import picture


def test_ready_when_the_model_is_available_and_answers(http: FlaskClient, server: FaultyModelServer) -> None:
    assert http.get("/readyz").status_code == 200
    assert (server.status_calls, len(server.calls)) == (1, 1)


def test_alive_without_any_model_server(make_app: Callable[..., Flask]) -> None:
    http = make_app(backend="127.0.0.1:1").test_client()
    assert http.get("/healthz").status_code == 200
    assert http.get("/readyz").status_code == 503


def test_alive_asks_nobody(http: FlaskClient, server: FaultyModelServer) -> None:
    http.get("/healthz")
    assert (server.status_calls, len(server.calls)) == (0, 0)


@pytest.mark.parametrize("state", ["START", "LOADING", "UNLOADING", "END", "UNKNOWN"])
def test_not_ready_while_no_version_is_available(http: FlaskClient, server: FaultyModelServer, state: str) -> None:
    server.states = {7: state}
    answer = http.get("/readyz")
    assert (answer.status_code, answer.get_json()["type"]) == (503, "/problems/not-ready")
    assert state in answer.get_json()["detail"]


def test_ready_while_a_new_version_loads(http: FlaskClient, server: FaultyModelServer) -> None:
    server.states = {7: "AVAILABLE", 8: "LOADING"}
    assert http.get("/readyz").status_code == 200


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INTERNAL])
def test_not_ready_when_the_status_call_fails(
    http: FlaskClient, server: FaultyModelServer, code: grpc.StatusCode
) -> None:
    server.status_code = code
    assert http.get("/readyz").status_code == 503


def test_not_ready_when_available_but_not_answering(http: FlaskClient, server: FaultyModelServer) -> None:
    server.behaviour = fail(grpc.StatusCode.INTERNAL)
    assert http.get("/readyz").status_code == 503


def test_a_verdict_stands_for_a_while(http: FlaskClient, server: FaultyModelServer) -> None:
    for _ in range(5):
        http.get("/readyz")
    assert server.status_calls == 1


def test_an_answered_picture_is_proof_enough(http: FlaskClient, server: FaultyModelServer) -> None:
    http.post("/v1/predict", data=picture())
    assert http.get("/readyz").status_code == 200
    assert len(server.calls) == 1


def test_ready_again_when_the_model_is_back(make_app: Callable[..., Flask], server: FaultyModelServer) -> None:
    readiness = health.Readiness(make_app().extensions["whence"], fresh_s=0)
    server.states = {7: "LOADING"}
    assert readiness.problem() is not None
    server.states = {7: "AVAILABLE"}
    assert readiness.problem() is None


def test_not_ready_while_a_server_that_is_back_gets_no_requests_yet(
    http: FlaskClient, server: FaultyModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says AVAILABLE, and pictures were answered a moment ago; but what is sent here now would get 503."""
    monkeypatch.setattr(breaker, "FIRST_REST_S", 60.0)  # else a probe may close it before a busy machine asks
    assert http.post("/v1/predict", data=picture()).status_code == 200
    server.script(*[fail(grpc.StatusCode.UNAVAILABLE)] * breaker.FAILURES_TO_OPEN)
    for _ in range(breaker.FAILURES_TO_OPEN):
        assert http.post("/v1/predict", data=picture()).status_code == 503
    assert http.get("/readyz").status_code == 503


def test_probes_do_not_pile_up_behind_a_model_that_hangs(
    make_app: Callable[..., Flask], server: FaultyModelServer
) -> None:
    app = make_app()
    server.behaviour = hang = Hang()
    first = threading.Thread(target=lambda: app.test_client().get("/readyz"))
    first.start()
    assert hang.waiting.acquire(timeout=10)
    start = time.monotonic()
    assert app.test_client().get("/readyz").status_code == 503
    assert time.monotonic() - start < health.LOOK_TIMEOUT_S / 2
    hang.let_go.set()
    first.join()
    assert len(server.calls) == 1


def test_not_ready_but_answering_while_draining(http: FlaskClient) -> None:
    lifecycle.draining.set()
    assert http.get("/readyz").status_code == 503
    assert http.get("/healthz").status_code == 200
    assert http.post("/v1/predict", data=picture()).status_code == 200


def test_models_lists_the_versions_and_their_states(http: FlaskClient, server: FaultyModelServer) -> None:
    server.states = {8: "LOADING", 7: "AVAILABLE"}
    (model,) = http.get("/v1/models").get_json()["models"]
    assert model["name"] == "culture"
    assert model["versions"] == [{"version": 7, "state": "AVAILABLE"}, {"version": 8, "state": "LOADING"}]


def test_models_is_unavailable_without_a_model_server(http: FlaskClient, server: FaultyModelServer) -> None:
    server.kill()
    assert http.get("/v1/models").status_code == 503
