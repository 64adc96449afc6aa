"""The REST port: status and metadata of models in TensorFlow Serving's JSON, and metrics; no `:predict`."""

import json
import logging
import re
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import grpc
from google.protobuf.json_format import MessageToJson
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap  # noqa: F401  # MessageToJson unpacks it
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving.server.errors import ServingError
from serving.server.logs import event
from serving.server.metrics import Metrics
from serving.server.models import Models
from serving.server.services import metadata

_MODEL: Final = re.compile(
    r"/v1/models/(?P<name>[^/:]+)(/versions/(?P<version>[0-9]{1,19})|/labels/(?P<label>[^/:]+))?(?P<metadata>/metadata)?"
)
_HTTP: Final = {  # TensorFlow Serving's http_rest_api_util maps the same way
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.FAILED_PRECONDITION: 412,
    grpc.StatusCode.UNAVAILABLE: 503,
}
_SLOW_CLIENT_S: Final = 10.0


class RestServer:
    """Serves on its own threads from `start` to `stop`.

    Args:
        address: Host and port; port 0 takes a free one.
        models: What is asked about.
        metrics: What is scraped.
        prometheus_path: Where; None switches it off.

    Raises:
        OSError: The port cannot be had.
    """

    def __init__(self, address: tuple[str, int], models: Models, metrics: Metrics, prometheus_path: str | None) -> None:
        class Handler(_Handler):
            pages = _Pages(models, metrics, prometheus_path)

        self._server = _Server(address, Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begins to answer."""
        self._thread.start()

    def stop(self) -> None:
        """Answers no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], handler: type["_Handler"]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own would ask the DNS for our name, which may take long

    def handle_error(self, request: Any, client_address: Any) -> None:
        event(logging.WARNING, "a REST connection failed", traceback=True)


class _Pages:
    """What each path answers: status, content type, body."""

    def __init__(self, models: Models, metrics: Metrics, prometheus_path: str | None) -> None:
        self._models, self._metrics, self._prometheus_path = models, metrics, prometheus_path

    def get(self, path: str) -> tuple[int, str, bytes]:
        if path == self._prometheus_path:
            return 200, "text/plain; version=0.0.4; charset=utf-8", self._metrics.text()
        match = _MODEL.fullmatch(path)
        if match is None or int(match["version"] or 0) >= 1 << 63:
            return _error(404, "unknown path, expected /v1/models/<name>[/versions/<n>|/labels/<label>][/metadata]")
        spec = ModelSpec(name=match["name"])
        if match["version"]:
            spec.version.value = int(match["version"])
        if match["label"]:
            spec.version_label = match["label"]
        try:
            return 200, "application/json", self._metadata(spec) if match["metadata"] else self._status(spec)
        except ServingError as error:
            return _error(_HTTP.get(error.code, 500), str(error))

    def _status(self, spec: ModelSpec) -> bytes:
        response = GetModelStatusResponse(model_version_status=self._models.statuses(spec))
        return MessageToJson(
            response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        ).encode()

    def _metadata(self, spec: ModelSpec) -> bytes:
        with self._models.using(spec) as version:
            response = metadata(version.model, version.number, version.servable.signature_def_map)
        return MessageToJson(
            response, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        ).encode()


def _error(status: int, text: str) -> tuple[int, str, bytes]:
    return status, "application/json", json.dumps({"error": text}).encode()


class _Handler(BaseHTTPRequestHandler):
    pages: _Pages
    protocol_version = "HTTP/1.1"
    server_version = "whence"
    sys_version = ""
    timeout = _SLOW_CLIENT_S

    def do_GET(self) -> None:
        self._send(*self.pages.get(self.path.split("?", 1)[0]))

    def do_POST(self) -> None:
        self.close_connection = True  # the body stays unread
        self._send(*_error(501, "this server predicts over gRPC only; REST tells status, metadata and metrics"))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors of http.server itself, such as an unknown method or a malformed line."""
        self.close_connection = True
        self._send(*_error(int(code), message or "this request is not understood"))

    def log_message(self, format: str, *args: object) -> None:
        """Scrapes and probes are not worth a line."""

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
