"""Whatever is sent, the answer is a picture's result or the documented problem, never a 500."""

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from werkzeug.test import TestResponse

from tests.gateway.conftest import noise, picture


def post(http: FlaskClient, data: bytes, content_type: str = "image/jpeg") -> TestResponse:
    return http.post("/v1/predict", data=data, content_type=content_type)


def problem(answer: TestResponse) -> tuple[int, str]:
    assert answer.content_type == "application/problem+json", answer.get_data()
    document = answer.get_json()
    assert set(document) == {"type", "title", "status", "detail", "request_id"}
    assert document["status"] == answer.status_code
    return answer.status_code, document["type"].removeprefix("/problems/")


def bomb(side: int) -> bytes:
    """A PNG of side x side white pixels in few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    deflate = zlib.compressobj(9)
    row = b"\0" + b"\xff" * ((side + 7) // 8)
    rows = b"".join(deflate.compress(row) for _ in range(side)) + deflate.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("content_type", ["image/jpeg", "application/octet-stream", "", "application/json"])
def test_an_empty_body_is_a_bad_request(http: FlaskClient, content_type: str) -> None:
    assert problem(post(http, b"", content_type)) == (400, "bad-request")


def test_text_named_jpg_is_unsupported_media(http: FlaskClient) -> None:
    answer = http.post("/v1/predict", data={"file": (io.BytesIO(b"I am a picture, honestly"), "art.jpg", "image/jpeg")})
    assert problem(answer) == (415, "unsupported-media")


def test_a_truncated_jpeg_is_undecodable(http: FlaskClient) -> None:
    whole = noise((400, 300))
    assert problem(post(http, whole[: len(whole) // 2])) == (422, "undecodable-image")


def test_a_bomb_is_refused_before_it_goes_off(http: FlaskClient) -> None:
    assert problem(post(http, bomb(30_000))) == (422, "unacceptable-image")


def test_too_many_bytes_are_refused_by_their_length(make_app: Callable[..., Flask]) -> None:
    http = make_app(max_body_bytes=2000, max_upload_bytes=2000).test_client()
    assert problem(post(http, b"\0" * 2001)) == (413, "too-large")


def test_a_picture_with_too_many_bytes_is_refused(make_app: Callable[..., Flask]) -> None:
    http = make_app(max_upload_bytes=2000).test_client()
    assert problem(post(http, noise((100, 100)))) == (413, "too-large")
    encoded = json.dumps({"images": [{"b64": base64.b64encode(noise((100, 100))).decode()}]})
    assert problem(post(http, encoded.encode(), "application/json")) == (413, "too-large")


@pytest.mark.parametrize("form", ["multipart", "json"])
def test_too_many_pictures_are_refused(http: FlaskClient, form: str) -> None:
    if form == "json":
        answer = http.post("/v1/predict", json={"images": [{"b64": "AAAA"}] * 33})
    else:
        answer = http.post("/v1/predict", data={"file": [(io.BytesIO(b"x"), "x.jpg") for _ in range(33)]})
    assert problem(answer) == (413, "too-large")


@pytest.mark.parametrize("side", [150, 600, 1500])
def test_a_file_part_of_any_size_is_answered(http: FlaskClient, side: int) -> None:
    """Werkzeug counts and spools parts above some sizes: 64 kB, 500 kB."""
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="x.jpg"\r\n\r\n'
    body = head + noise((side, side), quality=95) + b"\r\n--x--\r\n"
    assert post(http, body, "multipart/form-data; boundary=x").status_code == 200


def test_the_most_pictures_are_answered(http: FlaskClient) -> None:
    answer = http.post("/v1/predict", data={"file": [(io.BytesIO(picture()), "x.jpg") for _ in range(32)]})
    assert len(answer.get_json()["predictions"]) == 32


@pytest.mark.parametrize(
    "document",
    [
        b"", b"{", b"[]", b"null", b'"images"', b"{}", b'{"images": []}', b'{"images": {}}', b'{"picture": "AAAA"}',
        b'{"images": [{}]}', b'{"images": ["AAAA"]}', b'{"images": [{"b64": 1}]}', b'{"images": [{"b64": "*"}]}',
        b'{"images": [{"b64": ""}]}', b'{"images": [{"b64": "AAA"}]}', b'{"images": [{"b64": "AAAA", "filename": 1}]}',
        b"\xff\xfe", b"[" * 5_000, b'{"images": [{"b64": "\xc3\xa4AAA"}]}',
    ],
)  # fmt: skip
def test_wrong_json_is_a_bad_request(http: FlaskClient, document: bytes) -> None:
    assert problem(post(http, document, "application/json")) == (400, "bad-request")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b""),
        ("multipart/form-data; boundary=x", b"no boundary here"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: form-data; name=file"),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\nnameless\r\n--x--\r\n"),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a.jpg"\r\n\r\nabc\r\n--x--\r\n',
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\na field, no file\r\n--x--\r\n',
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n\r\n--x--\r\n',
        ),
        (
            "multipart/form-data; boundary=x",
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\nnever ends',
        ),
    ],
)
def test_wrong_multipart_is_a_bad_request(http: FlaskClient, content_type: str, body: bytes) -> None:
    assert problem(post(http, body, content_type)) == (400, "bad-request")


@pytest.mark.parametrize("content_type", ["text/plain", "video/mp4", "nonsense", "application/xml"])
def test_a_foreign_content_type_is_unsupported_media(http: FlaskClient, content_type: str) -> None:
    assert problem(post(http, picture(), content_type)) == (415, "unsupported-media")


def test_a_compressed_body_is_unsupported_media(http: FlaskClient) -> None:
    answer = http.post("/v1/predict", data=picture(), headers={"Content-Encoding": "gzip"})
    assert problem(answer) == (415, "unsupported-media")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF"])
def test_bytes_decide_the_format_not_the_content_type(http: FlaskClient, format: str) -> None:
    assert post(http, picture(format=format), "image/x-icon").status_code == 200


def _saved(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


_RED = Image.new("RGB", (40, 30), "red")
_EXIF = Image.Exif()
_EXIF[0x0112] = 6

UNUSUAL = {
    "CMYK": _saved(_RED.convert("CMYK"), "JPEG"),
    "grey": _saved(_RED.convert("L"), "PNG"),
    "16 bit": _saved(Image.fromarray(np.full((30, 40), 40_000, np.uint16)), "PNG"),
    "float": _saved(Image.fromarray(np.full((30, 40), 0.5, np.float32)), "TIFF"),
    "rotated": _saved(_RED, "JPEG", exif=_EXIF),
    "animated": _saved(_RED, "GIF", save_all=True, append_images=[Image.new("RGB", (40, 30), "blue")]),
    "animated WebP": _saved(_RED, "WEBP", save_all=True, append_images=[Image.new("RGB", (40, 30), "blue")]),
    "transparent": _saved(Image.new("RGBA", (40, 30), (255, 0, 0, 100)), "PNG"),
    "transparent palette": _saved(_RED.convert("P"), "PNG", transparency=0),
    "one pixel": _saved(Image.new("RGB", (1, 1), "red"), "PNG"),
    "very long": _saved(Image.new("RGB", (20_000, 1), "red"), "PNG"),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_an_unusual_picture_is_answered(http: FlaskClient, kind: str) -> None:
    answer = post(http, UNUSUAL[kind])
    assert answer.status_code == 200, answer.get_json()
    if kind not in ("grey", "16 bit", "float", "transparent palette"):
        assert answer.get_json()["predictions"][0]["culture"] == "red"


def test_an_address_that_does_not_exist_is_a_problem(http: FlaskClient) -> None:
    assert problem(http.get("/nowhere")) == (404, "not-found")


def test_a_wrong_method_is_a_problem_that_names_the_right_one(http: FlaskClient) -> None:
    answer = http.get("/v1/predict")
    assert problem(answer) == (405, "method-not-allowed")
    assert answer.headers["Allow"] == "OPTIONS, POST"


@pytest.mark.parametrize("seconds", ["0", "-1", "x", "nan", "", "1e999x"])
def test_a_bad_timeout_is_a_bad_request(http: FlaskClient, seconds: str) -> None:
    answer = http.post("/v1/predict", data=picture(), headers={"X-Request-Timeout": seconds})
    assert problem(answer) == (400, "bad-request")
