"""The Open Inference Protocol: tritonclient, which knows nothing of us, works; wrong requests are problems."""

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.http as triton
from flask import Flask
from flask.testing import FlaskClient
from tritonclient.utils import InferenceServerException

from tests.fakes import LABELS, FaultyModelServer, changed, fail
from tests.gateway.conftest import BLUE, GREEN, noise, picture
from tests.gateway.processes import Gateway

PIXELS = np.zeros((2, 224, 224, 3), np.uint8)
PIXELS[0, ..., 1] = PIXELS[1, ..., 2] = 200


@pytest.fixture
def client(start: Callable[..., Gateway]) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{start().port}") as client:
        yield client


def likeliest(result: Any) -> list[str]:
    rows = zip(result.as_numpy("labels"), result.as_numpy("probabilities"), strict=True)
    return [labels[probabilities.argmax()].decode() for labels, probabilities in rows]


def test_a_foreign_client_sees_a_server_and_its_model(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("culture")
    assert client.is_model_ready("culture", "7")
    assert not client.is_model_ready("culture", "8")
    assert client.get_model_metadata("culture")["versions"] == ["7"]
    assert client.get_server_metadata()["name"] == "whence"


def test_a_foreign_client_sends_pixels_and_pictures_in_every_form(client: Any) -> None:
    for binary in (True, False):
        pixels = triton.InferInput("images", list(PIXELS.shape), "UINT8")
        pixels.set_data_from_numpy(PIXELS, binary_data=binary)
        result = client.infer("culture", [pixels], request_id="mine")
        assert likeliest(result) == ["green", "blue"]
        assert result.get_response()["id"] == "mine"
    pictures = triton.InferInput("images", [2], "BYTES")
    pictures.set_data_from_numpy(np.array([picture(GREEN), picture(BLUE, "PNG")], dtype=object))
    wanted = [triton.InferRequestedOutput(name, binary_data=name == "labels") for name in ("labels", "probabilities")]
    result = client.infer("culture", [pictures], outputs=wanted, model_version="7")
    assert likeliest(result) == ["green", "blue"]
    with pytest.raises(InferenceServerException, match="there is no model 'weather'"):
        client.infer("weather", [pictures])


def infer(http: FlaskClient, tensor: object, **members: object) -> tuple[int, dict[str, Any]]:
    answer = http.post("/v2/models/culture/infer", json={"inputs": [tensor], **members})
    document: dict[str, Any] = answer.get_json()
    return answer.status_code, document


def encoded(*pictures: bytes, **members: object) -> dict[str, Any]:
    data = [base64.b64encode(each).decode() for each in pictures]
    return {"name": "images", "shape": [len(data)], "datatype": "BYTES", "data": data} | members


def test_outputs_have_a_column_for_each_label_in_the_models_order(http: FlaskClient) -> None:
    status, document = infer(http, encoded(picture(GREEN), picture(BLUE)))
    assert (status, document["model_name"], document["model_version"]) == (200, "culture", "7")
    outputs = {output["name"]: output for output in document["outputs"]}
    assert outputs["labels"]["data"] == list(LABELS) * 2
    assert outputs["probabilities"]["shape"] == [2, 3]
    assert outputs["decision"]["data"] == ["accepted"] * 2


WRONG: dict[str, object] = {
    "no object": 1,
    "other name": encoded(picture()) | {"name": "x"},
    "no shape": {"name": "images", "datatype": "BYTES", "data": []},
    "shape of text": encoded(picture()) | {"shape": ["1"]},
    "shape of booleans": encoded(picture()) | {"shape": [True]},
    "negative shape": encoded(picture()) | {"shape": [-1]},
    "other count": encoded(picture()) | {"shape": [2]},
    "three dimensions": encoded(picture()) | {"shape": [1, 1, 1]},
    "no data": encoded(picture()) | {"data": None},
    "no base64": encoded(picture()) | {"data": ["*"]},
    "a number for a picture": encoded(picture()) | {"data": [1]},
    "other type": encoded(picture()) | {"datatype": "FP32"},
    "unhashable type": encoded(picture()) | {"datatype": {}},
    "pixels of other size": {"name": "images", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [0] * 12},
    "too few pixels": {"name": "images", "shape": [1, 224, 224, 3], "datatype": "UINT8", "data": [0] * 12},
    "ragged": {"name": "images", "shape": [1, 224, 224, 3], "datatype": "UINT8", "data": [[1], [1, 2]]},
    "too large a number": {"name": "images", "shape": [1, 224, 224, 3], "datatype": "UINT8", "data": [256] * 150528},
    "huge number": {"name": "images", "shape": [1, 224, 224, 3], "datatype": "UINT8", "data": [10**30]},
    "text for pixels": {"name": "images", "shape": [1, 224, 224, 3], "datatype": "UINT8", "data": ["a"]},
    "parameters no object": encoded(picture()) | {"parameters": 1},
    "binary size without data": encoded(picture()) | {"parameters": {"binary_data_size": 5}},
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_tensor_is_a_bad_request(http: FlaskClient, server: FaultyModelServer, kind: str) -> None:
    status, document = infer(http, WRONG[kind])
    assert (status, document["type"]) == (400, "/problems/bad-request")
    assert document["error"] == document["detail"]  # where the protocol looks for it
    assert not server.calls


@pytest.mark.parametrize(
    "members", [{"outputs": 1}, {"outputs": [1]}, {"outputs": [{"name": 1}]}, {"outputs": [{"name": "x"}]}]
)
def test_wrong_outputs_are_a_bad_request(http: FlaskClient, members: dict[str, Any]) -> None:
    assert infer(http, encoded(picture()), **members)[0] == 400


@pytest.mark.parametrize("length", ["-1", "x", "99999999999999999999", "5", ""])
def test_a_wrong_length_of_the_json_is_a_bad_request(http: FlaskClient, length: str) -> None:
    body = json.dumps({"inputs": [encoded(picture())]})
    headers = {"Inference-Header-Content-Length": length}
    assert http.post("/v2/models/culture/infer", data=body, headers=headers).status_code == 400


@pytest.mark.parametrize("packed", [b"\x05\0\0\0ab", b"\x05\0", b"\xff\xff\xff\xff"])
def test_packed_bytes_that_end_early_are_a_bad_request(http: FlaskClient, packed: bytes) -> None:
    tensor = {"name": "images", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(packed)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    assert http.post("/v2/models/culture/infer", data=head + packed, headers=headers).status_code == 400


def test_a_broken_picture_is_the_problem_of_the_request(http: FlaskClient) -> None:
    assert infer(http, encoded(picture(), b"text"))[0] == 415


def test_a_picture_of_too_many_bytes_is_refused(make_app: Callable[..., Flask], server: FaultyModelServer) -> None:
    http = make_app(max_upload_bytes=2000).test_client()
    answer = http.post("/v2/models/culture/infer", json={"inputs": [encoded(noise((64, 64)))]})
    assert (answer.status_code, answer.get_json()["type"]) == (413, "/problems/too-large")
    assert not server.calls


def test_too_many_pictures_are_refused(http: FlaskClient) -> None:
    assert infer(http, encoded(*[b"x"] * 33))[0] == 413


def test_a_version_is_asked_for_by_number(http: FlaskClient, server: FaultyModelServer) -> None:
    server.script(changed(lambda response: setattr(response.model_spec.version, "value", 3)))
    answer = http.post("/v2/models/culture/versions/3/infer", json={"inputs": [encoded(picture())]})
    assert answer.get_json()["model_version"] == "3"
    assert server.calls[0].request.model_spec.version.value == 3


def test_a_version_that_is_not_there_is_not_found(http: FlaskClient, server: FaultyModelServer) -> None:
    server.script(fail(grpc.StatusCode.NOT_FOUND))
    answer = http.post("/v2/models/culture/versions/3/infer", json={"inputs": [encoded(picture())]})
    assert answer.status_code == 404
    assert http.get("/v2/models/culture/versions/3").status_code == 404


@pytest.mark.parametrize("number", ["0", "99999999999999999999", "-1", "x"])
def test_a_version_that_cannot_be_is_not_found(http: FlaskClient, number: str) -> None:
    assert http.get(f"/v2/models/culture/versions/{number}").status_code == 404


def test_another_version_than_asked_for_is_a_lie(http: FlaskClient) -> None:
    answer = http.post("/v2/models/culture/versions/3/infer", json={"inputs": [encoded(picture())]})
    assert answer.status_code == 502


def test_not_ready_is_told_by_status(make_app: Callable[..., Flask], server: FaultyModelServer) -> None:
    server.states = {7: "LOADING"}
    http = make_app().test_client()
    for path in ("/v2/health/ready", "/v2/models/culture/ready", "/v2/models/culture/versions/7/ready"):
        assert http.get(path).status_code == 503
    assert http.get("/v2/health/live").status_code == 200
