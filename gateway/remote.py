"""Whence for Python programs: `Whence("http://localhost:8080").classify(picture_bytes)`. Standard library only.

Asking twice changes nothing on the service, so whatever may pass by itself is asked again: at once where a kept
connection had gone stale, else after `Retry-After` or a growing pause. Threads that share a `Whence` pause together.
"""

import http.client
import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

_REFUSALS: Final = frozenset({400, 413, 415, 422})  # it is the picture
_FAULTS: Final = frozenset({500, 502, 504})  # it may be the picture: ask again a few times only
_BUSY: Final = frozenset({408, 429, 503})  # it is not the picture: wait and ask again, as long as patience lasts
_FAULT_ATTEMPTS: Final = 3
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 30.0


@dataclass(frozen=True)
class Answer:
    """What the service said about one picture. Probabilities are 0..1, `top` is sorted by them."""

    culture: str
    probability: float
    decision: str  # accepted, abstained or out_of_distribution
    top: tuple[tuple[str, float], ...]
    model: str
    version: str
    request_id: str


class RemoteError(Exception):
    """No answer. The text is for people; `request_id` finds the cause in the service's log."""

    def __init__(self, text: str, *, status: int | None = None, request_id: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.request_id = request_id


class Refused(RemoteError):
    """The service will not take this picture, however often it is asked (HTTP 400, 413, 415, 422)."""


class Failed(RemoteError):
    """The service failed on this picture; it may work another day (HTTP 500, 502, 504)."""


class Unavailable(RemoteError):
    """No service: not reached or full for as long as patience lasted, or something else lives at this address."""


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Whence:
    """A service at `url`. Threads may share it: each keeps a connection of its own."""

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 60.0,
        patience_s: float = 300.0,
        key: str | None = None,
        on_pause: Callable[[RemoteError], None] = lambda error: None,
    ) -> None:
        """Take the service's address; nothing is sent yet.

        Args:
            url: http://host:port or https://host, with a path in front of /v1 if a proxy adds one.
            timeout_s: longest silence of the service within one attempt.
            patience_s: longest time from the first attempt for a picture to the last; nobody waits for a service that
                has never been reached.
            key: API key, for a service that wants one.
            on_pause: told, in the thread that asks, why it waits before it asks again.
        """
        parts = urlsplit(url)
        try:
            (parts.hostname or "").encode("idna")
            parts.path.encode("ascii")
        except UnicodeError as error:
            raise ValueError(f"{url!r} is no address: {error}") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is no address like http://localhost:8080")
        self.url = url
        self._https = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._path = f"{parts.path.rstrip('/')}/v1/predict"
        self._timeout_s, self._patience_s = timeout_s, patience_s
        self._headers = {
            "Content-Type": "application/octet-stream",
            "Accept": "application/json",
            # Unasked it gives less, which a large picture may need for the way alone; its own most stays the most.
            "X-Request-Timeout": f"{timeout_s:g}",
        }
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._on_pause = on_pause
        self._own = threading.local()
        self._connections: list[http.client.HTTPConnection] = []
        self._stopped = threading.Event()
        self._met = False  # whether the service has answered anything yet
        self._resume_at = 0.0  # time.monotonic() before which nobody asks again

    def classify(self, picture: bytes) -> Answer:
        """The service's answer for the bytes of one picture file. Raises Refused, Failed or Unavailable."""
        give_up_at = time.monotonic() + self._patience_s
        attempt = faults = 0
        while True:
            attempt += 1
            pause_s = min(_LONGEST_PAUSE_S, 0.25 * 2**attempt) * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load
            try:
                reply = self._post(picture)
            except (OSError, http.client.HTTPException) as cause:
                error: RemoteError = Unavailable(f"{self.url} cannot be reached: {cause or type(cause).__name__}")
                if not self._met:
                    raise error from cause  # more likely a wrong address than a service that is about to come back
            else:
                self._met = True
                if reply.status == http.HTTPStatus.OK:
                    return _answer(reply)
                error = _error(reply)
                faults += reply.status in _FAULTS
                if reply.status not in _BUSY and (reply.status not in _FAULTS or faults == _FAULT_ATTEMPTS):
                    raise error
                pause_s = _retry_after_s(reply.headers.get("Retry-After"), pause_s)
            if time.monotonic() + pause_s > give_up_at:
                raise error
            self._on_pause(error)
            if not self._pause(pause_s):
                raise error

    def stop(self) -> None:
        """End every pause, now and from now on: what is being asked finishes, nothing is asked again."""
        self._stopped.set()

    def close(self) -> None:
        """Close all connections."""
        self.stop()
        for connection in self._connections:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pause(self, seconds: float) -> bool:
        """Wait, together with all threads that ask; false when stopped meanwhile."""
        self._resume_at = max(self._resume_at, time.monotonic() + seconds)
        return not self._stopped.wait(seconds)

    def _post(self, picture: bytes) -> _Reply:
        self._stopped.wait(max(0.0, self._resume_at - time.monotonic()))
        connection = self._connection()
        if connection.sock is not None:
            try:
                return self._send(connection, picture)
            except ConnectionError:
                pass  # the service had closed it between two pictures
        return self._send(connection, picture)

    def _connection(self) -> http.client.HTTPConnection:
        """This thread's own. It opens itself when it is used."""
        if not hasattr(self._own, "connection"):
            kind = http.client.HTTPSConnection if self._https else http.client.HTTPConnection
            self._own.connection = kind(self._host, self._port, timeout=self._timeout_s)
            self._connections.append(self._own.connection)
        connection: http.client.HTTPConnection = self._own.connection
        return connection

    def _send(self, connection: http.client.HTTPConnection, picture: bytes) -> _Reply:
        """One exchange. Whatever goes wrong, the connection is closed and can be used again."""
        complete = True
        try:
            try:
                connection.request("POST", self._path, body=picture, headers=self._headers)
            except (BrokenPipeError, ConnectionResetError):
                complete = False  # it stopped reading, perhaps because the picture is too large: it may have said why
            response = connection.getresponse()
            reply = _Reply(response.status, dict(response.headers), response.read())
        except BaseException:
            connection.close()
            raise
        if not complete:
            connection.close()
        return reply


def _answer(reply: _Reply) -> Answer:
    try:
        document = json.loads(reply.body)
        (prediction,) = document["predictions"]
        return Answer(
            culture=str(prediction["culture"]),
            probability=float(prediction["probability"]),
            decision=str(prediction.get("decision", "accepted")),
            top=tuple((str(each["culture"]), float(each["probability"])) for each in prediction["top"]),
            model=str(document["model"]["name"]),
            version=str(document["model"]["version"]),
            request_id=str(document["request_id"]),
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unavailable("this is no answer of Whence; is the address right?", status=reply.status) from error


def _error(reply: _Reply) -> RemoteError:
    """What a status other than 200 means: a problem document (RFC 9457), or whatever a proxy made of it."""
    problem: Any = None
    with suppress(ValueError, RecursionError):
        problem = json.loads(reply.body)
    if not isinstance(problem, dict):
        problem = {}
    title = str(problem.get("title") or f"HTTP status {reply.status}")
    detail = str(problem.get("detail") or title)
    kind = Refused if reply.status in _REFUSALS else Failed if reply.status in _FAULTS else Unavailable
    text = detail if detail.lower().startswith(title.lower()) else f"{title}: {detail}"
    return kind(text, status=reply.status, request_id=str(problem.get("request_id") or ""))


def _retry_after_s(value: str | None, otherwise_s: float) -> float:
    """Seconds that Retry-After asks for, perhaps by a date (RFC 9110, section 10.2.3), else `otherwise_s`."""
    try:
        if value and value.isdigit():
            seconds = float(value)
        else:
            seconds = (parsedate_to_datetime(value or "") - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return otherwise_s
    return max(_SHORTEST_PAUSE_S, seconds)
