"""JSON that is small on the wire and large in memory is refused before it is read."""

import io
import json
from collections.abc import Callable

import numpy as np
import pytest
from flask.testing import FlaskClient

from gateway import documents, v2
from gateway.errors import BadRequest, TooLarge
from tests.gateway.processes import Gateway

PIXELS = {"name": "images", "shape": [1, 224, 224, 3], "datatype": "UINT8"}
SWOLLEN = {
    "objects": ("/v1/predict", b'{"images":[' + b"{}," * 10_000_000 + b"{}]}"),
    "lists": ("/v1/predict", b'{"images":[' + b"[]," * 10_000_000 + b"[]]}"),
    "names": ("/v1/predict", b"{" + b'"":0,' * 6_000_000 + b'"":0}'),
    "lists for pixels": (
        "/v2/models/culture/infer",
        json.dumps({"inputs": [PIXELS | {"data": 0}]}).encode()[:-4] + b"[" + b"[]," * 10_000_000 + b"[]]}]}",
    ),
    "a long text among short ones": (  # numpy gives each the longest one's room
        "/v2/models/culture/infer",
        json.dumps({"inputs": [PIXELS | {"data": ["a" * 1_000_000, *"b" * 600]}]}).encode(),
    ),
    "a longer text": (
        "/v2/models/culture/infer",
        json.dumps({"inputs": [PIXELS | {"data": ["a" * 4_000_000, *"b" * 200_000]}]}).encode(),
    ),
}


def test_swollen_json_is_refused_without_the_memory(start: Callable[..., Gateway]) -> None:
    gateway = start()
    before = gateway.memory("VmHWM")
    for path, body in SWOLLEN.values():
        answer = gateway.http.post(path, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 413), (path, body[:40])
    assert gateway.memory("VmHWM") < before + 150  # the body itself and a copy


def test_values_are_counted_before_they_are_read() -> None:
    assert documents.load(b'{"a": [1, 2]}', most=3) == {"a": [1, 2]}
    with pytest.raises(TooLarge, match="more than 3 values"):
        documents.load(b'{"a": [1, 2, 3]}', most=3)


@pytest.mark.parametrize("nested", [False, True])
def test_eight_pictures_of_pixels_fit_into_json(nested: bool) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 224, 224, 3), np.uint8)
    tensor = {"name": "images", "shape": list(pixels.shape), "datatype": "UINT8"}
    data = pixels.tolist() if nested else pixels.ravel().tolist()
    body = json.dumps({"inputs": [tensor | {"data": data}]}).encode()
    read = v2.read(body, None, most=32).pixels
    assert read is not None
    assert np.array_equal(read, pixels)


def test_more_packed_values_than_the_shape_says_are_not_unpacked() -> None:
    packed = bytes(4 * 5_000_000)
    tensor = {"name": "images", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(packed)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(BadRequest, match="more than 1 values"):
        v2.read(head + packed, str(len(head)), most=32)


def test_a_shape_of_many_pictures_is_refused_before_its_data_are_looked_at(http: FlaskClient) -> None:
    tensor = {"name": "images", "shape": [33], "datatype": "BYTES", "data": "no data"}
    answer = http.post("/v2/models/culture/infer", data=io.BytesIO(json.dumps({"inputs": [tensor]}).encode()))
    assert answer.status_code == 413
