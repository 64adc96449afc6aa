"""WHENCE_MODEL_LABEL: which version of the model a gateway asks for, as a canary needs it."""

from collections.abc import Callable

import grpc
from flask import Flask

from tests.fakes import FaultyModelServer, fail
from tests.gateway.conftest import picture


def test_predict_asks_for_the_label_when_one_is_set(make_app: Callable[..., Flask], server: FaultyModelServer) -> None:
    make_app(model_label="canary").test_client().post("/v1/predict", data=picture(), content_type="image/jpeg")
    assert server.calls[0].request.model_spec.version_label == "canary"


def test_predict_asks_for_the_newest_version_when_no_label_is_set(
    make_app: Callable[..., Flask], server: FaultyModelServer
) -> None:
    make_app().test_client().post("/v1/predict", data=picture(), content_type="image/jpeg")
    assert server.calls[0].request.model_spec.WhichOneof("version_choice") is None


def test_ready_says_no_when_the_label_is_not_there(make_app: Callable[..., Flask], server: FaultyModelServer) -> None:
    server.script(fail(grpc.StatusCode.INVALID_ARGUMENT))
    assert make_app(model_label="canary").test_client().get("/readyz").status_code == 503
