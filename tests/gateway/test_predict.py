"""POST /v1/predict and /predict/: the forms of asking, the shape of the answer."""

import base64
import io
import re

import grpc
import numpy as np
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.fakes import FaultyModelServer, changed, fail, floats, strings, with_output
from tests.gateway.conftest import BLUE, GREEN, RED, picture

FORMS = ["raw", "multipart", "json"]


def ask(http: FlaskClient, form: str, *pictures: bytes, query: str = "") -> TestResponse:
    address = f"/v1/predict{query}"
    if form == "raw":
        return http.post(address, data=pictures[0], content_type="image/jpeg")
    if form == "multipart":
        files = [(io.BytesIO(data), f"{at}.jpg") for at, data in enumerate(pictures)]
        return http.post(address, data={"file": files})
    return http.post(address, json={"images": [{"b64": base64.b64encode(data).decode()} for data in pictures]})


@pytest.mark.parametrize("form", FORMS)
def test_predict_answers_every_form_of_asking(http: FlaskClient, form: str) -> None:
    answer = ask(http, form, picture(GREEN))
    assert answer.status_code == 200
    document = answer.get_json()
    assert document["model"] == {"name": "culture", "version": 7}
    assert document["request_id"] == answer.headers["X-Request-ID"]
    (prediction,) = document["predictions"]
    assert (prediction["culture"], prediction["decision"]) == ("green", "accepted")
    assert prediction["top"][0]["culture"] == "green"
    assert sum(each["probability"] for each in prediction["top"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("form", ["multipart", "json"])
def test_predict_keeps_a_batch_in_order(http: FlaskClient, server: FaultyModelServer, form: str) -> None:
    answer = ask(http, form, picture(RED), picture(BLUE), picture(GREEN))
    assert [each["culture"] for each in answer.get_json()["predictions"]] == ["red", "blue", "green"]
    assert len(server.calls) == 1


def test_predict_gives_file_names_back(http: FlaskClient) -> None:
    answer = ask(http, "multipart", picture(), picture())
    assert [each["filename"] for each in answer.get_json()["predictions"]] == ["0.jpg", "1.jpg"]


def test_predict_gives_an_odd_file_name_back_as_text(http: FlaskClient) -> None:
    image = {"b64": base64.b64encode(picture()).decode(), "filename": "\ud800" + "x" * 1000}
    answer = http.post("/v1/predict", json={"images": [image]})
    assert answer.get_json()["predictions"][0]["filename"] == "?" + "x" * 254


def test_predict_tells_of_a_broken_picture_beside_the_good_ones(http: FlaskClient) -> None:
    answer = ask(http, "multipart", picture(RED), b"nothing", picture(RED)[:150], picture(BLUE))
    assert answer.status_code == 200
    red, unknown, truncated, blue = answer.get_json()["predictions"]
    assert (red["culture"], blue["culture"]) == ("red", "blue")
    assert (unknown["problem"]["status"], truncated["problem"]["status"]) == (415, 422)


def test_predict_answers_a_batch_of_broken_pictures_without_the_model(
    http: FlaskClient, server: FaultyModelServer
) -> None:
    answer = ask(http, "multipart", b"nothing", b"at all")
    assert [each["problem"]["status"] for each in answer.get_json()["predictions"]] == [415, 415]
    assert answer.get_json()["model"]["version"] is None
    assert not server.calls


def test_predict_cuts_the_list_at_top_k(http: FlaskClient) -> None:
    (prediction,) = ask(http, "raw", picture(), query="?top_k=2").get_json()["predictions"]
    assert len(prediction["top"]) == 2


@pytest.mark.parametrize("top_k", ["0", "-1", "x", "1.5", "", "1001", "99999999999", "²"])
def test_predict_refuses_a_bad_top_k(http: FlaskClient, top_k: str) -> None:
    assert ask(http, "raw", picture(), query=f"?top_k={top_k}").status_code == 400


def test_predict_passes_the_models_decision_on(http: FlaskClient, server: FaultyModelServer) -> None:
    server.script(with_output("decision", strings(["abstained"], (1,))))
    (prediction,) = ask(http, "raw", picture()).get_json()["predictions"]
    assert prediction["decision"] == "abstained"


def test_predict_reads_float_val_too(http: FlaskClient, server: FaultyModelServer) -> None:
    server.script(with_output("probabilities", floats(np.array([[0.25, 0.5, 0.25]], np.float32), packed=False)))
    (prediction,) = ask(http, "raw", picture()).get_json()["predictions"]
    assert (prediction["culture"], prediction["probability"]) == ("green", 0.5)


def test_predict_as_before_answers_the_label_alone(http: FlaskClient) -> None:
    answer = http.post("/predict/", data={"file": (io.BytesIO(picture(BLUE)), "b.jpg")})
    assert answer.get_json() == {"class_label": "blue"}


def test_predict_as_before_takes_one_picture(http: FlaskClient, server: FaultyModelServer) -> None:
    files = [(io.BytesIO(picture()), "a.jpg"), (io.BytesIO(picture()), "b.jpg")]
    assert http.post("/predict/", data={"file": files}).status_code == 400
    assert not server.calls


def test_predict_keeps_a_safe_request_id(http: FlaskClient) -> None:
    answer = http.post("/v1/predict", data=picture(), headers={"X-Request-ID": "abc-1.2_3"})
    assert answer.headers["X-Request-ID"] == answer.get_json()["request_id"] == "abc-1.2_3"


@pytest.mark.parametrize("unsafe", ["a b", "x" * 65, "<script>", "é", ""])
def test_predict_replaces_an_unsafe_request_id(http: FlaskClient, unsafe: str) -> None:
    answer = http.post("/v1/predict", data=picture(), headers={"X-Request-ID": unsafe.encode().decode("latin-1")})
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-ID"])


def test_predict_carries_trace_and_request_id_to_the_model_server(http: FlaskClient, server: FaultyModelServer) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    http.post("/v1/predict", data=picture(), headers={"traceparent": trace, "X-Request-ID": "me"})
    assert server.calls[0].metadata["traceparent"] == trace
    assert server.calls[0].metadata["x-request-id"] == "me"


def test_predict_drops_a_broken_trace(http: FlaskClient, server: FaultyModelServer) -> None:
    http.post("/v1/predict", data=picture(), headers={"traceparent": "00-" + "0" * 32 + "-00f067aa0ba902b7-01"})
    assert "traceparent" not in server.calls[0].metadata


def test_predict_names_the_version_that_answered(http: FlaskClient, server: FaultyModelServer) -> None:
    server.script(changed(lambda response: setattr(response.model_spec.version, "value", 12)))
    assert ask(http, "raw", picture()).get_json()["model"]["version"] == 12


def test_predict_asks_the_contracts_signature(http: FlaskClient, server: FaultyModelServer) -> None:
    ask(http, "raw", picture())
    spec = server.calls[0].request.model_spec
    assert (spec.name, spec.signature_name) == ("culture", "serving_default")


def test_predict_answers_503_with_retry_after_when_the_model_is_away(
    http: FlaskClient, server: FaultyModelServer
) -> None:
    server.script(fail(grpc.StatusCode.UNAVAILABLE))
    answer = ask(http, "raw", picture())
    assert answer.status_code == 503
    assert answer.content_type == "application/problem+json"
    assert answer.get_json()["type"] == "/problems/model-unavailable"
    assert 1 <= int(answer.headers["Retry-After"]) <= 10
