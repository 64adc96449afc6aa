"""The Met's collection API and picture server for tests: a real HTTP server on a free port, with faults on order."""

import csv
import io
import json
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import numpy as np
from PIL import Image

# The header of MetObjects.csv as the museum writes it.
HEADER = next(
    csv.reader(
        [
            "Object Number,Is Highlight,Is Timeline Work,Is Public Domain,Object ID,Gallery Number,Department,"
            "AccessionYear,Object Name,Title,Culture,Period,Dynasty,Reign,Portfolio,Constituent ID,Artist Role,"
            "Artist Prefix,Artist Display Name,Artist Display Bio,Artist Suffix,Artist Alpha Sort,Artist Nationality,"
            "Artist Begin Date,Artist End Date,Artist Gender,Artist ULAN URL,Artist Wikidata URL,Object Date,"
            "Object Begin Date,Object End Date,Medium,Dimensions,Credit Line,Geography Type,City,State,County,Country,"
            "Region,Subregion,Locale,Locus,Excavation,River,Classification,Rights and Reproduction,Link Resource,"
            "Object Wikidata URL,Metadata Date,Repository,Tags,Tags AAT URL,Tags Wikidata URL"
        ]
    )
)
FIREWALL_PAGE = b'<html><head><script src="/_Incapsula_Resource?SWJIYLWA=1"></script></head><body></body></html>'


@dataclass
class Fault:
    """What to answer instead of the truth, once."""

    status: int = 200
    body: bytes | None = None  # None: the true body
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    cut_short: bool = False  # promise the whole body, send half, hang up


@dataclass(frozen=True)
class Request:
    path: str
    at: float
    user_agent: str


def picture_of(seed: int, *, width: int = 128, height: int = 112, kind: str = "JPEG") -> bytes:
    """A small picture, different for every seed."""
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((width, height)).save(file, kind)
    return file.getvalue()


class FakeMet:
    """The server. `add` objects, order `faults` by path, read `requests` afterwards."""

    def __init__(self) -> None:
        self.answers: dict[int, dict[str, Any]] = {}
        self.rows: list[dict[str, str]] = []
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[Fault]] = defaultdict(list)
        self.always: dict[str, Fault] = {}
        self.delay_s = 0.0  # before every answer
        self.down = False
        self.requests: list[Request] = []
        self.busiest = 0  # requests under way at once, at most
        self._busy = 0
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.api = f"{self.address}/public/collection/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, object_id: int, culture: str = "Italian", picture: bytes | None = None, **fields: Any) -> None:
        """An object in catalogue and API; `fields` are the API's, and the catalogue's where it has them too."""
        path, original = self.picture_path(object_id), self.picture_path(object_id, original=True)
        self.files[path] = self.files[original] = picture if picture is not None else picture_of(object_id)
        answer: dict[str, Any] = {
            "objectID": object_id, "accessionNumber": f"19.{object_id}", "isPublicDomain": True, "culture": culture,
            "primaryImage": self.address + original, "primaryImageSmall": self.address + path, "additionalImages": [],
            "department": "European Decorative Arts", "objectName": "Plate", "title": f"Plate {object_id}",
            "artistDisplayName": "", "artistNationality": "", "artistPrefix": "", "artistRole": "",
            "objectDate": "ca. 1550", "medium": "Faience", "classification": "Ceramics",
            "objectURL": f"https://www.metmuseum.org/art/collection/search/{object_id}",
        } | fields  # fmt: skip
        self.answers[object_id] = answer
        self.row(
            **{
                "Object ID": str(object_id), "Object Number": answer["accessionNumber"], "Culture": answer["culture"],
                "Is Public Domain": "True", "Title": answer["title"], "Classification": answer["classification"],
                "Object Name": answer["objectName"], "Artist Nationality": answer["artistNationality"],
                "Artist Display Name": answer["artistDisplayName"], "Artist Prefix": answer["artistPrefix"],
            }
        )  # fmt: skip

    def row(self, **columns: str) -> None:
        """A row of the catalogue alone."""
        self.rows.append(columns)

    def csv(self) -> bytes:
        """MetObjects.csv, with its byte order mark."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, HEADER, restval="")
        writer.writeheader()
        writer.writerows(self.rows)
        return b"\xef\xbb\xbf" + text.getvalue().encode()

    def write_csv(self, path: Path) -> Path:
        path.write_bytes(self.csv())
        return path

    def object_path(self, object_id: int) -> str:
        return f"/public/collection/v1/objects/{object_id}"

    def picture_path(self, object_id: int, *, original: bool = False) -> str:
        return f"/CRDImages/es/{'original' if original else 'web-large'}/DP{object_id}.jpg"

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(request.path == path for request in self.requests)

    def _true_body(self, path: str) -> bytes | None:
        if path in self.files:
            return self.files[path]
        object_id = path.removeprefix(self.object_path(0)[:-1])
        if object_id.isdecimal() and int(object_id) in self.answers:
            return json.dumps(self.answers[int(object_id)]).encode()
        return self.csv() if path == "/MetObjects.csv" else None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        met = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = unquote(self.path)
                with met._lock:
                    met.requests.append(Request(path, time.monotonic(), self.headers["User-Agent"]))
                    met._busy += 1
                    met.busiest = max(met.busiest, met._busy)
                    ordered = met.faults[path]
                    fault = ordered.pop(0) if ordered else met.always.get(path)
                try:
                    self._answer(path, fault or Fault(500 if met.down else 200))
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client was killed, or lost patience
                finally:
                    with met._lock:
                        met._busy -= 1

            def _answer(self, path: str, fault: Fault) -> None:
                time.sleep(fault.delay_s or met.delay_s)
                body = fault.body if fault.body is not None else met._true_body(path)
                status = fault.status
                if body is None:
                    status, body = 404, b'{"message":"ObjectID not found"}'
                self.send_response(status)
                for name, value in fault.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if fault.cut_short:
                    self.wfile.write(body[: len(body) // 2])
                    self.close_connection = True
                else:
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: the tests read `requests`."""

        return Handler
