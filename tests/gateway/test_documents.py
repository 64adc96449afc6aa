"""JSON that is small on the wire and large in memory is refused before it is read."""

import base64
import io
import json
import socket
import tracemalloc
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from gateway import documents, v2
from gateway.errors import BadRequest, Problem, TooLarge
from gateway.limits import ByteBudget
from gateway.settings import Settings
from tests.gateway.conftest import noise
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


PATIENT = {"request_timeout_s": 120, "max_request_timeout_s": 120, "graceful_timeout_s": 130}  # on a busy machine


def load(body: bytes, **options: int) -> dict[str, Any]:
    with ByteBudget(10**9).account() as account, documents.opened(body, account, **options) as document:
        return document


def test_values_are_counted_before_they_are_read() -> None:
    assert load(b'{"a": [1, 2]}', most=3) == {"a": [1, 2]}
    with pytest.raises(TooLarge, match="more than 3 values"):
        load(b'{"a": [1, 2, 3]}', most=3)


@pytest.mark.parametrize(
    "piece",
    [b"{}", b"[]", b"[1]", b"[[[[]]]]", b"1.5", b"1000", b"[1,2,3]", b'"abcd"', b'["abcd"]', b'{"a":1}', b'{"ab":"cd"}',
     b'{"a":{"b":{"c":{}}}}', b'{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6}'],
)  # fmt: skip
def test_what_json_takes_is_held(piece: bytes) -> None:
    assert taken(b'{"a":[' + b",".join([piece] * 20_000) + b"]}") < 1


@pytest.mark.parametrize("piece", [rb'"\uffff"', rb'"\ud83d\ude00"'])
def test_what_wide_characters_take_is_held(piece: bytes) -> None:
    assert taken(b'{"a":[' + b",".join([piece] * 4_000) + b"]}") < 1


@pytest.mark.parametrize("member", ['"%06d":1000', '"%06d":"%06d"'])
def test_what_many_names_take_is_held(member: str) -> None:
    assert taken(b"{" + ",".join(member.replace("%06d", f"{at:06d}") for at in range(20_000)).encode() + b"}") < 1


def taken(body: bytes) -> float:
    """The memory of the document in `body`, as a share of what is held for it."""
    tracemalloc.start()
    try:
        with ByteBudget(10**9).account() as account, documents.opened(body, account, most=10**6) as document:
            assert document
            return tracemalloc.get_traced_memory()[0] / account.held
    finally:
        tracemalloc.stop()


def test_many_requests_of_swelling_json_at_once_take_bounded_memory(start: Callable[..., Gateway]) -> None:
    """Each is below the limit for one; 24 took 1,000 MB."""
    gateway = start(**PATIENT)
    before = gateway.memory("VmHWM")
    body = b'{"inputs":[' + b'{"a":1},' * (v2.MAX_JSON_VALUES // 2 - 10) + b"1]}"
    head = f"POST /v2/models/culture/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with ExitStack() as held:
        clients = []
        for _ in range(24):
            clients.append(held.enter_context(socket.create_connection(("127.0.0.1", gateway.port))))
            clients[-1].sendall(head + body[:-1])
        for client in clients:
            client.sendall(body[-1:])
        for client in clients:
            assert client.recv(12).split()[1] in (b"400", b"413", b"503")
    assert gateway.memory("VmHWM") < before + 400  # 192 MiB are held, and what is joined or copied


def test_one_wide_character_makes_no_text_four_times_as_large(start: Callable[..., Gateway]) -> None:
    """It took 580 MB, and 380 MB in many texts."""
    gateway = start(**PATIENT)
    before = gateway.memory("VmHWM")
    some, escaped = "A" * 60_000, r"\ud83d\ude00"
    many = f'{some}{escaped}","' * 1000
    for name, text in (("\N{GRINNING FACE}", some * 1000), ("a", some * 1000 + escaped), ("a", many)):
        body = f'{{"images": [{{"filename": "{name}", "b64": ["{text}"]}}]}}'.encode()
        headers = {"Content-Type": "application/json"}
        answer = gateway.http.post("/v1/predict", content=body, headers=headers, timeout=150)
        assert answer.status_code in (400, 413)
    assert gateway.memory("VmHWM") < before + 300  # the body, its text, the picture


@pytest.mark.parametrize("escaped", [False, True])
def test_a_large_picture_may_have_a_name_in_any_script(http: FlaskClient, escaped: bool) -> None:
    data = noise((600, 600), quality=95)
    image = {"b64": base64.b64encode(data).decode(), "filename": 'é"北\\斎\N{GRINNING FACE}'}
    body = json.dumps({"images": [image]}, ensure_ascii=escaped).encode()
    assert len(body) > documents.MAX_WIDE
    answer = http.post("/v1/predict", data=body, content_type="application/json")
    assert answer.get_json()["predictions"][0]["filename"] == image["filename"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b'{"a": "' + b"A" * 70_000 + rb'\u5317"}', TooLarge),
        (rb'{"a": "\"' + b"A" * 70_000 + rb"\\\"\u5317", TooLarge),
        ('{"a": "' + "北" * 30_000 + '"}', TooLarge),
        (b'{"a": "\xff"}', BadRequest),
        (b"\xff\xfe{\0}\0", BadRequest),
    ],
)
def test_a_long_text_that_is_not_ascii_is_refused(body: bytes | str, problem: type[Problem]) -> None:
    with pytest.raises(problem):
        load(body if isinstance(body, bytes) else body.encode())


def test_a_byte_order_mark_is_passed_over() -> None:
    assert load('\N{BYTE ORDER MARK}{"é": "北"}'.encode()) == {"é": "北"}


@pytest.mark.parametrize("nested", [False, True])
def test_eight_pictures_of_pixels_fit_into_json(nested: bool) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (8, 224, 224, 3), np.uint8)
    tensor = {"name": "images", "shape": list(pixels.shape), "datatype": "UINT8"}
    data = pixels.tolist() if nested else pixels.ravel().tolist()
    body = json.dumps({"inputs": [tensor | {"data": data}]}).encode()
    with ByteBudget(Settings.max_held_bytes).account() as account:
        account.hold(len(body))
        read = v2.read(body, None, account, most=32).pixels
    assert read is not None
    assert np.array_equal(read, pixels)


def test_more_packed_values_than_the_shape_says_are_not_unpacked() -> None:
    packed = bytes(4 * 5_000_000)
    tensor = {"name": "images", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": len(packed)}}
    head = json.dumps({"inputs": [tensor]}).encode()
    with ByteBudget(10**9).account() as account, pytest.raises(BadRequest, match="more than 1 values"):
        v2.read(head + packed, str(len(head)), account, most=32)


def test_a_shape_of_many_pictures_is_refused_before_its_data_are_looked_at(http: FlaskClient) -> None:
    tensor = {"name": "images", "shape": [33], "datatype": "BYTES", "data": "no data"}
    answer = http.post("/v2/models/culture/infer", data=io.BytesIO(json.dumps({"inputs": [tensor]}).encode()))
    assert answer.status_code == 413
