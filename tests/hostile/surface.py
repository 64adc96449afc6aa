"""The whole HTTP surface with values that nobody needs: each is to be answered below 500, soon, errors as problems."""

import json
from collections.abc import Iterator
from itertools import product
from typing import Final

ROUTES: Final = (
    "/", "/v1/predict", "/predict/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/v1/feedback",
    "/v1/models", "/v2", "/v2/health/ready", "/v2/models/culture", "/v2/models/culture/versions/7/ready",
    "/v2/models/culture/infer", "/favicon.ico",
)  # fmt: skip
METHODS: Final = ("HEAD", "OPTIONS", "TRACE", "PUT", "CONNECT", "PROPFIND", "DELETE")
ADDRESSES: Final = (
    "http:///healthz", "http://[::1", "https://x:99999/healthz", "//evil/healthz", "//", "/%2fhealthz",
    "/v1%2fpredict", "/v1/predict%00", "/v1/predict/%2e%2e", "/%c0%ae%c0%ae/", "/%", "/%zz", "/v1/predict;x=1",
    "/v1/predict?" + "a=1&" * 900, "/v1/predict?top_k=%ff", "/v1/predict?explain=%00",
    "/v1/predict?explain=heatmap&culture=%ed%a0%80", "/v1/predict?explain=neighbours&k=50",
    "/v2/models/culture/versions/9999999999999999999/infer", "/v2/models/culture/versions/-1", "/v2/models/%00",
    "/v2/models/culture%2finfer", "*", "healthz", "/\\..\\", "/healthz#x", "http://x@y/healthz",
)  # fmt: skip
HEADERS: Final = {
    "Accept": ("*/*;q=9", "image/png;q=nan", "a" * 5000, "text/html;q=1e999", ",", "image/png;q="),
    "Content-Type": (
        "multipart/form-data; boundary=", 'multipart/form-data; boundary="\\"', "/", ";", "image/png; =",
        "multipart/form-data" + '; a="' * 1300, "multipart/form-data;" + " " * 7900 + "x",
        "application/json; charset=utf-7", "multipart/form-data; boundary*=utf-8''x",
    ),
    "X-Request-Timeout": ("nan", "inf", "-1", "0", "1e400", "0x1", "1_0", " ", "1" * 4000),
    "Authorization": ("Bearer", "Bearer \xff", "Basic x"),
    "Cookie": ("a=b;" * 500, "\xff=\xff"),
    "If-None-Match": ("W/", '"\xff"'),
    "If-Modified-Since": ("Thu, 99 Foo 99999999999 00:00:00 GMT",),
    "traceparent": ("00-", "00-" + "0" * 32 + "-" + "0" * 16 + "-00"),
    "Idempotency-Key": ('"', "\xff", "a" * 129),
    "Inference-Header-Content-Length": ("-1", "x", "9" * 4000, "\xb2", "0", "5"),
    "Content-Encoding": ("gzip", "identity, gzip"),
    "Connection": ("close, close", "Transfer-Encoding", "\xff"),
    "Range": ("bytes=0-99999999999999999999,-1",),
    "Host": ("a b<script>", "a:99999999", "a@b/%", "\xff"),
    "Expect": ("100-continue",),
}  # fmt: skip
_CHUNKED: Final = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
FRAMES: Final = {
    "extension": _CHUNKED + b'3;a=b;c="d e"\r\nabc\r\n0\r\n\r\n',
    "huge extension": _CHUNKED + b"3;" + b"a" * 100_000 + b"\r\nabc\r\n0\r\n\r\n",
    "hexadecimal prefix": _CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "underscore": _CHUNKED + b"1_0\r\nabc\r\n0\r\n\r\n",
    "size of 4,000 digits": _CHUNKED + b"f" * 4000 + b"\r\nabc\r\n",
    "bare LF in chunks": _CHUNKED + b"3\nabc\n0\n\n",
    "forbidden trailer": _CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 1\r\n\r\n",
    "huge trailers": _CHUNKED + b"3\r\nabc\r\n0\r\nX: " + b"a" * 700_000 + b"\r\n\r\n",
    "chunks of one byte": _CHUNKED + b"1\r\na\r\n" * 50_000 + b"0\r\n\r\n",
    "coding twice": _CHUNKED[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": _CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n",
    "5,000 digits of length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "signed length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nabcde",
    "bare LF": b"GET /healthz HTTP/1.1\nHost: x\n\n",
    "first line folded": b"GET /healthz HTTP/1.1\r\n Host: x\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 30,
    "h2c": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: A\r\n\r\n",
    "PROXY": b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "200 in one": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 200,
}
_PART: Final = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n'
FORMS: Final = {
    "nothing": b"",
    "200,000 headers": b"--x\r\n" + b"A: b\r\n" * 200_000 + b"\r\n\r\n--x--",
    "a long header": b'--x\r\nContent-Disposition: form-data; name="' + b"a" * 1_000_000 + b'"\r\n\r\n\r\n--x--',
    "100,000 parts": (_PART + b"\r\nx\r\n") * 100_000 + b"--x--",
    "boundaries": b"\r\n--x" * 500_000,
    "almost boundaries": _PART + b"\r\n" + b"\r\n--" * 1_000_000 + b"\r\n--x--",
    "returns": _PART + b"\r\n" + b"\r" * 3_000_000 + b"\r\n--x--",
    "unknown charset": b"--x\r\nContent-Disposition: form-data; name=file; filename*=zzz''a\r\n\r\nx\r\n--x--",
    "quotes": b"--x\r\nContent-Disposition: form-data; " + b'a="\\\\' * 100_000 + b"\r\n\r\n\r\n--x--",
    "continuations": b"--x\r\nContent-Disposition: form-data" + b'; a*0="b"' * 100_000 + b"\r\n\r\n\r\n--x--",
    "spaces": b"--x\r\nContent-Disposition: form-data" + b" " * 900_000 + b"x\r\n\r\n\r\n--x--",
}
JSON: Final = {
    "lists in lists": b"[" * 1_000_000,
    "objects in objects": b'{"a":' * 500_000,
    "a number of 10,000 digits": b'{"images":' + b"9" * 10_000 + b"}",
    "no numbers": b'{"images":[NaN],"inputs":[{"name":"images","shape":[NaN],"datatype":"UINT8","data":[NaN]}]}',
    "UTF-16": '{"images":[]}'.encode("utf-16"),
    "half characters": b'{"images":[{"b64":"\\ud800"}],"request_id":"\\ud800","culture":"\\ud800"}',
    "many members": b"{" + b",".join(b'"%d":1' % number for number in range(300_000)) + b"}",
}
_VALUES: Final[tuple[object, ...]] = (10**30, True, 256, -1, "a", None, 1.5)
TENSORS: Final[tuple[dict[str, object], ...]] = (
    {"shape": [2**31 - 1, 224, 224, 3], "datatype": "UINT8", "data": [1]},
    {"shape": [1, 224, 224, 3], "datatype": "UINT8", "data": [[1, 2], [3]]},
    {"shape": [1, 224, 224, 3], "datatype": "UINT8", "data": [{}]},
    {"shape": [True]}, {"shape": [1.0]}, {"shape": []}, {"data": [[[""]]]}, {"data": [[]]}, {"parameters": []},
    {"parameters": {"binary_data_size": -1}}, {"parameters": {"binary_data_size": 1e300}}, {"datatype": []},
)  # fmt: skip


def post(path: str, body: bytes, head: str) -> bytes:
    """A POST that asks for no further request."""
    lines = f"POST {path} HTTP/1.1\r\n{head}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return lines.encode("latin-1") + body


def cases(picture: bytes) -> Iterator[tuple[str, bytes]]:
    """What is sent, and what to call it."""
    for method, path in product(METHODS, ROUTES):
        yield f"{method} {path}", f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    for path in ADDRESSES:
        yield f"GET {path[:40]}", f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1")
        yield f"POST {path[:40]}", post(path, picture, "Host: x")
    for name, values in HEADERS.items():
        for value, path in product(values, ("/v1/predict", "/v2/models/culture/infer", "/v1/feedback", "/")):
            head = f"{name}: {value}" + ("" if name == "Host" else "\r\nHost: x")
            yield f"{name}: {value[:30]!r} to {path}", post(path, picture, head)
    yield from FRAMES.items()
    for name, body in FORMS.items():
        yield f"form of {name}", post("/v1/predict", body, "Host: x\r\nContent-Type: multipart/form-data; boundary=x")
    for (name, body), path in product(JSON.items(), ("/v1/predict", "/v1/feedback", "/v2/models/culture/infer")):
        yield f"JSON of {name} to {path}", post(path, body, "Host: x\r\nContent-Type: application/json")
    pixels: list[dict[str, object]] = [
        {"shape": [1, 224, 224, 3], "datatype": "UINT8", "data": [value] * 150_528} for value in _VALUES
    ]
    for tensor in (*TENSORS, *pixels):
        whole = {"name": "images", "shape": [1], "datatype": "BYTES", "data": [""]} | tensor
        body = json.dumps({"inputs": [whole]}).encode()
        yield f"tensor {str(tensor)[:60]}", post("/v2/models/culture/infer", body, "Host: x")
