"""Pictures and requests made to do harm: an answer below 500, in bounded time and memory, and the process stays."""

import io
import random
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from serving import images
from tests.gateway.conftest import noise, picture
from tests.gateway.processes import Gateway

MB = 1_000_000


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def seeds() -> list[bytes]:
    """Small pictures in every format, with what plugins stumble over: profiles, EXIF, palettes, many frames."""
    values = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    rgb = Image.fromarray(values)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 50
    extras = {"exif": exif, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    grey16 = Image.fromarray(values[..., 0].astype(np.uint16) * 200)
    frames = {"save_all": True, "append_images": [rgb.rotate(90)] * 4}
    return [
        saved(rgb, "JPEG", **extras), saved(rgb, "JPEG", progressive=True), saved(rgb.convert("CMYK"), "JPEG"),
        saved(rgb, "PNG", **extras), saved(rgb.convert("P"), "PNG", transparency=3), saved(grey16, "PNG"),
        saved(rgb, "WEBP", **extras), saved(rgb, "WEBP", lossless=True), saved(rgb, "WEBP", **frames),
        saved(rgb, "AVIF", **extras), saved(rgb, "TIFF", icc_profile=extras["icc_profile"]),
        saved(rgb, "TIFF", compression="tiff_lzw"), saved(rgb, "TIFF", compression="jpeg"),
        saved(rgb.convert("1"), "TIFF", compression="group4"), saved(rgb.convert("LAB"), "TIFF"),
        saved(rgb, "GIF"), saved(rgb, "GIF", transparency=1, **frames),
    ]  # fmt: skip


def mutated(data: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """`data` with some harm done to it."""
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 4, 16, 64])):
        at = dice.randrange(max(1, min(len(changed), dice.choice([64, 512, 10**9]))))
        match dice.randrange(6):
            case 0:
                changed[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                number = dice.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 65536, 30000])
                changed[at : at + 4] = struct.pack(dice.choice("<>") + "I", number)
            case 2:
                changed[at : at + 2] = struct.pack(dice.choice("<>") + "H", dice.choice([0, 1, 0xFFFF, 0x8000]))
            case 3:
                del changed[at : at + dice.randrange(1, 200)]
            case 4:
                other = dice.choice(others)
                start = dice.randrange(len(other))
                changed[at:at] = other[start : start + dice.randrange(200)]
            case 5:
                del changed[at + 8 :]
    return bytes(changed)


def test_a_mutated_picture_is_pixels_or_an_image_error() -> None:
    dice, originals = random.Random(4), seeds()
    for _ in range(2500):
        data = mutated(dice.choice(originals), dice, originals)
        try:
            pixels = images.decode(data)
        except images.ImageError:
            continue
        assert pixels.shape == (224, 224, 3)


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_PNG, _JPEG, _GIF = (saved(Image.new("RGB", (50, 50), "red"), format) for format in ("PNG", "JPEG", "GIF"))
_GIF_HEAD = 13 + (3 * (2 << (_GIF[10] & 7)) if _GIF[10] & 0x80 else 0)


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs a pass over all pixels and a few bytes."""
    data = saved(Image.new("L", (side, side), 200), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def strips(count: int) -> bytes:
    """A TIFF of 50 x 50,000 pixels with as many strips as it likes."""
    numbers = [(256, 1, 50), (257, 1, 50_000), (258, 1, 8), (259, 1, 1), (262, 1, 1), (273, count, 200), (277, 1, 1),
               (278, 1, 1), (279, count, 200)]  # fmt: skip
    tags = b"".join(struct.pack("<HHII", tag, 4, number, value) for tag, number, value in numbers)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(numbers)) + tags + b"\0" * (4 + 4 * count)


# Files of some megabytes that would keep Pillow busy for many seconds (found with a timer, not invented).
BUSY: dict[str, Callable[[], bytes]] = {
    "PNG of tiny chunks": lambda: _PNG[:33] + chunk(b"prIv") * 400_000 + _PNG[33:],
    "PNG of tiny texts": lambda: _PNG[:33] + chunk(b"tEXt", b"a\0b") * 400_000 + _PNG[33:],
    "PNG of packed texts": lambda: (
        _PNG[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 900_000)) * 5000 + _PNG[33:]
    ),
    "PNG of empty data": lambda: _PNG[:33] + chunk(b"IDAT") * 400_000 + _PNG[33:],
    "JPEG of tiny segments": lambda: _JPEG[:2] + b"\xff\xef\0\2" * 1_000_000 + _JPEG[2:],
    "JPEG of fill bytes": lambda: _JPEG[:2] + b"\xff" * 5 * MB + _JPEG[2:],
    "JPEG of nothing": lambda: b"\xff\xd8\xff" + b"\0" * 5 * MB,
    "JPEG of scans": lambda: scans(4000, 5000),
    "GIF of tiny extensions": lambda: _GIF[:_GIF_HEAD] + b"\x21\xfe\x01a\0" * MB + _GIF[_GIF_HEAD:],
    "GIF of unknown bytes": lambda: _GIF[:_GIF_HEAD] + b"\x01" * 5 * MB + _GIF[_GIF_HEAD:],
    "TIFF of strips": lambda: strips(500_000),
}


@pytest.mark.parametrize("kind", BUSY)
@pytest.mark.timeout(30)
def test_a_file_made_to_keep_us_busy_is_refused(kind: str) -> None:
    with pytest.raises(images.ImageError):
        images.decode(BUSY[kind]())


def test_many_scans_of_a_small_picture_are_welcome() -> None:
    assert images.decode(scans(64, 100)).shape == (224, 224, 3)


def test_a_polyglot_is_what_its_first_bytes_say(http: FlaskClient) -> None:
    """A JPEG that is a ZIP archive and a script too."""
    data = picture() + b"PK\x05\x06" + b"\0" * 18 + b"<script>alert(1)</script>"
    answer = http.post("/v1/predict", data=data)
    assert answer.status_code == 200
    assert "script" not in answer.text


def test_eight_of_the_largest_pictures_at_once_take_bounded_memory(start: Callable[..., Gateway]) -> None:
    gateway = start(request_timeout_s=120, max_request_timeout_s=120, graceful_timeout_s=130)
    side = 5000  # half the limit, to save time; at the limit 520 MB were measured, the interpreter included
    largest = [
        saved(Image.new("RGBA", (side, side), (255, 0, 0, 99)), "PNG", compress_level=1),
        saved(Image.new("RGB", (side, side), "red"), "JPEG", progressive=True),
        saved(Image.new("P", (side, side)), "PNG", transparency=0),
        saved(Image.new("RGB", (side, side)), "WEBP", lossless=True, method=0),
    ]
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda data: gateway.http.post("/v1/predict", content=data, timeout=150), largest * 2)
        assert [answer.status_code for answer in answers] == [200] * 8
    print(f"{gateway.memory('VmHWM'):.0f} MB at most")
    assert gateway.memory("VmHWM") < 600


NASTY = st.binary(max_size=300) | st.text(max_size=100).map(str.encode)
_hypothesis = settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@_hypothesis
@given(
    body=NASTY, content_type=st.sampled_from(["image/png", "application/json", "multipart/form-data; boundary=x", ""])
)
def test_any_body_is_answered_below_500(http: FlaskClient, body: bytes, content_type: str) -> None:
    for path in ("/v1/predict", "/predict/", "/v2/models/culture/infer"):
        assert http.post(path, data=body, content_type=content_type).status_code < 500


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["images", "b64", "filename", "inputs", "outputs", "name", "shape", "datatype", "data", "id",
                         "parameters", "binary_data_size"]),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@_hypothesis
@given(document=JSON)
def test_any_json_is_answered_below_500(http: FlaskClient, document: object) -> None:
    for path in ("/v1/predict", "/v2/models/culture/infer"):
        assert http.post(path, json=document).status_code < 500


@_hypothesis
@given(
    disposition=st.text(st.characters(codec="latin-1", exclude_characters="\r\n"), max_size=60),
    boundary=st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=80),
    body=NASTY,
)
def test_any_multipart_is_answered_below_500(http: FlaskClient, disposition: str, boundary: str, body: bytes) -> None:
    head = f"--{boundary}\r\nContent-Disposition: form-data; name=file; {disposition}\r\n\r\n".encode("latin-1")
    data = head + body + f"\r\n--{boundary}--\r\n".encode("latin-1")
    content_type = f"multipart/form-data; boundary={boundary}"
    assert http.post("/v1/predict", data=data, content_type=content_type).status_code < 500


@_hypothesis
@given(
    headers=st.dictionaries(
        st.sampled_from(["X-Request-ID", "traceparent", "X-Request-Timeout", "Authorization", "X-API-Key", "Accept",
                         "Content-Encoding", "Origin", "Expect", "Range", "Host", "Cookie"]),
        st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=60),
        max_size=5,
    ),
    query=st.text(max_size=40),
)  # fmt: skip
def test_any_headers_and_query_are_answered_as_documented(
    http: FlaskClient, headers: dict[str, str], query: str
) -> None:
    answer = http.post("/v1/predict", data=picture(), headers=headers, query_string=query)
    assert answer.status_code < 500 or answer.status_code == 504  # a tiny X-Request-Timeout
    assert "\n" not in answer.headers["X-Request-ID"]


def raw(gateway: Gateway, data: bytes) -> bytes:
    """Send bytes as they are; the status line, or nothing when the connection is closed without one."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as client:
        try:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return client.recv(4000).split(b"\r\n")[0]
        except OSError:  # closed before all was sent
            return b""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway without a model server for bytes that are no HTTP."""
    gateway = Gateway(tmp_path_factory.mktemp("hostile") / "log", backend="127.0.0.1:1", drain_s=0)
    yield gateway
    assert gateway.stop() == 0


_POST = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\n"
ODD: dict[str, tuple[bytes, set[int]]] = {
    "no HTTP": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\0" * 200, {0, 400}),
    "empty": (b"", {0}),
    "two lengths": (_POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", {400}),
    "length and chunks": (_POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    "negative length": (_POST + b"Content-Length: -1\r\n\r\n", {400}),
    "length of text": (_POST + b"Content-Length: abc\r\n\r\n", {400}),
    "huge length": (_POST + b"Content-Length: 99999999999999999999\r\n\r\n", {413}),
    "bad chunk size": (_POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", {400}),
    "huge chunk size": (_POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nabc", {400}),
    "unknown coding": (_POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", {400, 415, 501}),
    "header injection": (_POST + b"X-Request-ID: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", {400}),
    "NUL in a header": (_POST + b"X-Request-ID: a\0b\r\nContent-Length: 0\r\n\r\n", {400}),
    "space before colon": (_POST + b"Content-Length : 0\r\n\r\n", {400}),
    "folded header": (_POST + b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n", {400}),
    "long header": (_POST + b"X-A: " + b"a" * 100_000 + b"\r\n\r\n", {0, 431}),
    "many headers": (_POST + b"".join(b"X-%d: 1\r\n" % n for n in range(500)) + b"\r\n", {0, 431}),
    "long line": (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", {0, 414}),
    "path with CRLF": (b"GET /a%0d%0aSet-Cookie:%20b HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
    "path traversal": (b"GET /page/../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
    "encoded traversal": (b"GET /page/%2e%2e/%2e%2e/settings.py HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
    "NUL in a path": (b"GET /page/%00 HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
    "not UTF-8": (b"GET /%ff%fe?%ff HTTP/1.1\r\nHost: x\r\n\r\n", {404}),
    "other method": (b"BREW /v1/predict HTTP/1.1\r\nHost: x\r\n\r\n", {405}),
    "other version": (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", {400}),
    "whole address": (b"GET http://elsewhere/healthz HTTP/1.1\r\nHost: x\r\n\r\n", {200, 400}),
    "expectation": (_POST + b"Expect: miracles\r\nContent-Length: 0\r\n\r\n", {417, 400}),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_http_is_refused_politely(shared: Gateway, kind: str) -> None:
    data, expected = ODD[kind]
    line = raw(shared, data)
    assert (int(line.split()[1]) if line else 0) in expected, line
    assert shared.http.get("/healthz").status_code == 200


def test_random_bytes_leave_the_gateway_standing(shared: Gateway) -> None:
    dice = random.Random(3)
    request = _POST + b"Content-Type: image/png\r\nContent-Length: 20\r\n\r\n" + b"a" * 20
    for _ in range(150):
        line = raw(shared, mutated(request, dice, [request]))
        assert not line.startswith((b"HTTP/1.1 500", b"HTTP/1.1 502")), line
    assert shared.http.get("/healthz").status_code == 200
    assert shared.memory() < 110


def test_requests_leave_no_file_descriptors_and_threads_behind(shared: Gateway) -> None:
    def count() -> int:
        return len(list(Path(f"/proc/{shared.workers()[0]}/fd").iterdir()))

    data = noise((100, 100))
    for _ in range(20):
        shared.http.post("/v1/predict", content=data)
    before = count()
    for _ in range(100):
        shared.http.post("/v1/predict", content=data)
    assert count() <= before + 5
