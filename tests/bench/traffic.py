"""What arrives at a gateway that anybody may ask: good pictures, bad ones, and clients that do not mean well."""

import base64
import http.client
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tests.bench import pictures
from tests.hostile.pictures import BUSY, mutated, saved, seeds
from tests.hostile.requests import ODD

TIMEOUT_S = 30.0
SLOW_BODY_S = 1.0  # what a client that drips its body allows
CLOSED = 0  # instead of a status: no answer, the connection was closed
GONE = -1  # instead of a status: we hung up and did not look
SILENT = -2  # instead of a status: nothing within TIMEOUT_S


@dataclass(frozen=True)
class Reply:
    """What came back. `flaw` says what an error's body lacks of a problem document."""

    status: int
    problem: str = ""
    flaw: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of request: how it is sent, the statuses it deserves by itself, and whether the model is asked for it."""

    name: str
    weight: float
    send: Callable[["Sender"], Reply]
    statuses: frozenset[int]
    model: bool = True
    deadline_s: float | None = None  # the client's own; None: the gateway's


class Sender:
    """One thread's way to the gateway: a connection that is kept, and dice."""

    def __init__(self, port: int, seed: int) -> None:
        self.port, self.dice = port, random.Random(seed)
        self._kept: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None, *, keep: bool = True
    ) -> Reply:
        """A proper request, on the kept connection or on one of its own."""
        connection = self._kept if keep and self._kept else self._connection()
        if not keep:
            headers = {"Connection": "close", **(headers or {})}
        try:
            connection.request(method, path, body, dict(headers or {}), encode_chunked=not isinstance(body, bytes))
            reply = read(connection.getresponse())
        except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected):
            connection.close()
            if connection is not self._kept:
                return Reply(CLOSED)
            self._kept = None  # closed while it was idle: once more on a new one, as every client does
            return self.ask(method, path, body, headers, keep=keep)
        except TimeoutError:
            connection.close()
            self._kept = None
            return Reply(SILENT)
        if keep:
            self._kept = connection
        else:
            connection.close()
        return reply

    def raw(self, data: bytes, *, pause_s: float = 0.0, step: int = 1) -> Reply:
        """Bytes as they are; drip by drip if there is a pause."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S) as sock:
            try:
                for at in range(0, len(data), step if pause_s else max(1, len(data))):
                    sock.sendall(data[at : at + step] if pause_s else data)
                    if pause_s and _readable(sock, pause_s):
                        break
                if not pause_s:
                    sock.shutdown(socket.SHUT_WR)
                response = http.client.HTTPResponse(sock)
                response.begin()
                return read(response)
            except TimeoutError:
                return Reply(SILENT)
            except (OSError, http.client.HTTPException):
                return Reply(CLOSED)

    def hang_up(self, data: bytes, linger_s: float, *, reset: bool) -> Reply:
        """Send, wait a little, leave."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT_S) as sock:
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.sendall(data)
            time.sleep(linger_s)
        return Reply(GONE)

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)


def read(response: http.client.HTTPResponse) -> Reply:
    """The answer, and what is wrong with it if it is an error."""
    body = response.read()
    if response.status < 400:
        return Reply(response.status)
    try:
        document = json.loads(body)
        missing = {"type", "title", "status", "detail", "request_id"} - document.keys()
        flaw = f"lacks {sorted(missing)}" if missing else ""
        if response.headers.get_content_type() != "application/problem+json":
            flaw = f"is {response.headers.get_content_type()}"
        return Reply(response.status, str(document.get("type", "")).removeprefix("/problems/"), flaw)
    except (ValueError, AttributeError):
        return Reply(response.status, "", f"no problem document: {body[:60]!r}")


def _readable(sock: socket.socket, seconds: float) -> bool:
    sock.settimeout(seconds)
    try:
        return bool(sock.recv(1, socket.MSG_PEEK)) or True
    except TimeoutError:
        return False
    finally:
        sock.settimeout(TIMEOUT_S)


class Stock:
    """Bodies, made once."""

    def __init__(self) -> None:
        small = pictures.real()
        self.good = [*small, pictures.upload_300_kb(), pictures.large(), *seeds()]
        self.seeds = seeds()
        self.busy = [make() for make in BUSY.values()]
        self.large = [
            saved(Image.new("RGB", (7000, 7000), "red"), "JPEG", progressive=True),
            saved(Image.new("RGBA", (6000, 6000), (255, 0, 0, 99)), "PNG", compress_level=1),
            saved(Image.new("RGB", (4900, 4900)), "WEBP", lossless=True, method=0),
        ]
        self.bombs = [
            saved(Image.new("1", (30_000, 30_000)), "PNG"),
            saved(Image.new("L", (16_000, 16_000)), "JPEG"),
            saved(Image.new("1", (65_000, 65_000)), "TIFF", compression="group4"),
        ]
        self.pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8).tobytes()
        self.lock = threading.Lock()


def kinds(stock: Stock) -> list[Kind]:
    """All kinds; the weights say how often each comes."""
    jpeg = {"Content-Type": "image/jpeg"}

    def good(s: Sender) -> bytes:
        return s.dice.choice(stock.good)

    def bad(s: Sender) -> bytes:
        return mutated(s.dice.choice(stock.seeds), s.dice, stock.seeds)

    def chunks(s: Sender) -> Reply:
        data, size = good(s), s.dice.choice([1000, 20_000, 10**9])
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        return s.ask("POST", "/v1/predict", pieces, jpeg | {"Transfer-Encoding": "chunked"})

    def multipart(s: Sender, one: bytes, *more: bytes) -> Reply:
        edge = "whence-storm"
        parts = [
            f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{n}.jpg"\r\n\r\n'.encode() + data
            for n, data in enumerate((one, *more))
        ]
        body = b"\r\n".join([*parts, f"--{edge}--\r\n".encode()])
        path = "/v1/predict" if more else s.dice.choice(["/v1/predict", "/predict/"])
        return s.ask("POST", path, body, {"Content-Type": f"multipart/form-data; boundary={edge}"})

    def as_json(s: Sender) -> Reply:
        images = [{"b64": base64.b64encode(good(s)).decode()} for _ in range(s.dice.randrange(1, 4))]
        body = json.dumps({"images": images}).encode()
        return s.ask("POST", "/v1/predict?top_k=2", body, {"Content-Type": "application/json"})

    def explain(s: Sender) -> Reply:
        accept = s.dice.choice(["application/json", "image/png"])
        path = "/v1/predict?explain=heatmap,decision,provenance"
        return s.ask("POST", path, good(s), jpeg | {"Accept": accept})

    def v2_bytes(s: Sender) -> Reply:
        data = [base64.b64encode(good(s)).decode()]
        tensor = {"name": "images", "shape": [1], "datatype": "BYTES", "data": data}
        path = s.dice.choice(["/v2/models/culture/infer", "/v2/models/culture/versions/7/infer"])
        return s.ask("POST", path, json.dumps({"inputs": [tensor]}).encode())

    def v2_pixels(s: Sender) -> Reply:
        tensor = {"name": "images", "shape": [2, 224, 224, 3], "datatype": "UINT8"}
        head = json.dumps(
            {"inputs": [tensor | {"parameters": {"binary_data_size": len(stock.pixels)}}],
             "parameters": {"binary_data_output": True}}
        ).encode()  # fmt: skip
        headers = {"Inference-Header-Content-Length": str(len(head))}
        return s.ask("POST", "/v2/models/culture/infer", head + stock.pixels, headers)

    def feedback(s: Sender) -> Reply:
        document: dict[str, object] = {"request_id": f"storm-{s.dice.randrange(10**9)}", "culture": "Greek"}
        document |= s.dice.choice([{}, {}, {"note": "é" * 2000}, {"culture": 7}, {"x": 1}, {"note": "\ud800"}])
        headers = {"Content-Type": "application/json"}
        if s.dice.random() < 0.5:
            headers["Idempotency-Key"] = str(s.dice.randrange(1000))
        return s.ask("POST", "/v1/feedback", json.dumps(document).encode(), headers)

    def probe(s: Sender) -> Reply:
        return s.ask("GET", s.dice.choice(["/healthz", "/metrics", "/", "/openapi.json", "/docs"]))

    def models(s: Sender) -> Reply:
        return s.ask("GET", s.dice.choice(["/readyz", "/v2/health/ready", "/v1/models", "/v2/models/culture/ready"]))

    def lost(s: Sender) -> Reply:
        method, path = s.dice.choice([("GET", "/%2e%2e/x"), ("DELETE", "/v1/predict"), ("GET", "/v2/models/x")])
        return s.ask(method, path)

    def slow_head(s: Sender) -> Reply:
        return s.raw(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX-Slow: " + b"a" * 100, pause_s=0.5)

    def slow_body(s: Sender) -> Reply:
        head = (
            f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\nX-Request-Timeout: {SLOW_BODY_S}\r\n\r\n"
        )
        return s.raw(head.encode() + b"\xff\xd8\xff" + b"a" * 60, pause_s=0.25, step=len(head) + 5)

    def hang_up(s: Sender, share: float) -> Reply:
        data = good(s)
        head = f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        cut = data[: int(share * len(data))]
        return s.hang_up(head + cut, s.dice.random() * 0.5, reset=s.dice.random() < 0.5)

    def announced(s: Sender) -> Reply:
        return s.raw(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 70000000\r\n\r\nabc")

    def twice(s: Sender) -> Reply:
        return s.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3)

    odd = [kind for kind in ODD if kind != "empty"]
    odd_statuses = frozenset().union(*(ODD[kind][1] for kind in odd))
    refused = frozenset({400, 413, 415, 422})
    return [
        Kind("picture", 12, lambda s: s.ask("POST", "/v1/predict", good(s), jpeg), frozenset({200})),
        Kind("picture, closed after", 4, lambda s: s.ask("POST", "/v1/predict", good(s), jpeg, keep=False),
             frozenset({200})),
        Kind("chunked", 4, chunks, frozenset({200})),
        Kind("multipart", 4, lambda s: multipart(s, good(s)), frozenset({200})),
        Kind("multipart, some bad", 3, lambda s: multipart(s, good(s), bad(s) or b"x", good(s)),
             frozenset({200, 400})),
        Kind("JSON", 3, as_json, frozenset({200})),
        Kind("explain", 4, explain, frozenset({200})),
        Kind("v2, pictures", 3, v2_bytes, frozenset({200})),
        Kind("v2, pixels", 3, v2_pixels, frozenset({200})),
        Kind("mutated", 12, lambda s: s.ask("POST", "/v1/predict", bad(s), jpeg), frozenset({200}) | refused),
        Kind("made to keep busy", 0.4, lambda s: s.ask("POST", "/v1/predict", s.dice.choice(stock.busy)), refused,
             model=False),
        Kind("bomb", 1, lambda s: s.ask("POST", "/v1/predict", s.dice.choice(stock.bombs)), refused, model=False),
        # One after the other: on a busy machine the time of some is over before it is their turn.
        Kind("large", 0.4, lambda s: s.ask("POST", "/v1/predict", s.dice.choice(stock.large), jpeg),
             frozenset({200, 504})),
        Kind("feedback", 3, feedback, frozenset({200, 201, 400, 409, 429}), model=False),
        Kind("probe", 4, probe, frozenset({200}), model=False),
        Kind("models and readiness", 3, models, frozenset({200, 502, 503, 504}), model=False),
        Kind("lost", 2, lost, frozenset({404, 405}), model=False),
        Kind("slow head", 1, slow_head, frozenset({CLOSED}), model=False),
        Kind("slow body", 1.5, slow_body, frozenset({408}), model=False, deadline_s=SLOW_BODY_S),
        Kind("gone in mid body", 2, lambda s: hang_up(s, s.dice.random()), frozenset({GONE}), model=False),
        Kind("gone before the answer", 2, lambda s: hang_up(s, 1), frozenset({GONE}), model=False),
        Kind("too long", 1, announced, frozenset({413}), model=False),
        Kind("pipelined", 1, twice, frozenset({200}), model=False),
        Kind("hardly HTTP", 6, lambda s: s.raw(ODD[s.dice.choice(odd)][0]), odd_statuses, model=False),
    ]  # fmt: skip
