"""Asking somebody else's server politely: never faster than a rate, never before it says so, never without a name.

`requests` is the client: TensorFlow brings it into every environment that trains, it is typed, pools connections, and
knows proxies and certificate bundles from the environment. Its own retries are off, because here every attempt has to
pay for a turn, and one `Retry-After` has to hold back all threads.
"""

import io
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self, TypeVar

import requests
from requests.exceptions import InvalidSchema, InvalidURL, MissingSchema

from training import durable

T = TypeVar("T")

CONNECT_S: Final = 10.0  # seconds to connect
CHUNK_BYTES: Final = 1 << 16
SLOWEST: Final = 20  # times the read timeout for a whole body: who drips a byte a second is no server
TRY_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
GONE: Final = frozenset({404, 410})
SLOW_DOWN: Final = frozenset({429, 503})
# The museum's firewall answers whom it finds too fast with a page of its own, as 403 or even as 200, for half a minute
# and longer (metmuseum/openaccess, issues 20 and 60).
FIREWALL: Final = b"Incapsula"
TOO_FAST: Final = "the server finds us too fast"


class FetchError(RuntimeError):
    """No usable answer. The message holds no URL: it is counted as a reason."""


class Refused(FetchError):
    """An answer for good: it would be the same tomorrow (a body that is too large)."""


class NotFound(Refused):
    """404 or 410: for good as well, unless the address is a wrong one."""


class GaveUp(FetchError):
    """Nothing usable after all attempts; another day it may work."""


class TurnedAway(GaveUp):
    """A status that says something of us and nothing of what we ask for (401, 403, 407): no use in asking at once."""


class ComeBackLater(GaveUp):
    """The server asked for a longer pause than we want to wait."""


class Stopped(FetchError):
    """The run is ending."""


class Turns:
    """A token bucket for all threads: `rate` turns a second, `burst` of them at once, and pauses that hold all."""

    def __init__(self, rate: float, burst: int = 5) -> None:
        self._full_rate = self._rate = rate
        self._burst = self._tokens = float(burst)
        self._counted_at = time.monotonic()
        self._paused_until = 0.0
        self._lock = threading.Lock()

    def take(self) -> float:
        """Take a turn; the seconds to sleep before using it."""
        with self._lock:
            now = time.monotonic()
            start = max(now, self._paused_until)
            self._tokens += max(0.0, start - self._counted_at) * self._rate
            self._tokens = min(self._burst, self._tokens) - 1  # below zero: a turn in the future
            self._counted_at = max(start, self._counted_at)
            self._rate = min(self._full_rate, self._rate * 1.002)  # after a slow-down, double again in about 350 turns
            return start - now + max(0.0, -self._tokens) / self._rate

    def pause(self, seconds: float) -> None:
        """Nobody's turn for `seconds`, and half the rate after that; threads that were refused together count once."""
        with self._lock:
            now = time.monotonic()
            if now >= self._paused_until:
                self._rate = max(self._rate / 2, self._full_rate / 16)
            self._paused_until = max(self._paused_until, now + seconds)
            self._tokens, self._counted_at = 0.0, self._paused_until

    def paused(self) -> bool:
        """Whether a pause has begun since the turn was taken: take another one."""
        with self._lock:
            return time.monotonic() < self._paused_until


@dataclass(frozen=True)
class Patience:
    """How long to keep asking, in seconds. The waits double from `backoff_s`, each with a jitter of half of it."""

    attempts: int = 6
    backoff_s: float = 1.0
    longest_wait_s: float = 300.0
    read_s: float = 30.0  # without a byte


class Web:
    """GET with a rate, retries and bounds; one connection pool per thread. Use it in a `with`."""

    def __init__(self, *, user_agent: str, rate: float, patience: Patience = Patience()) -> None:
        self._user_agent = user_agent
        self._turns = Turns(rate)
        self._patience = patience
        self._stop = threading.Event()
        self._local = threading.local()
        self._sessions: list[requests.Session] = []

    def get(self, url: str, parse: Callable[[bytes], T], *, max_bytes: int) -> T:
        """What `parse` makes of the body at `url`. A ValueError of `parse` is a broken answer and worth another try.

        Raises Refused, GaveUp or Stopped.
        """
        body = io.BytesIO()
        return self._ask(url, body, lambda: parse(body.getvalue()), max_bytes)

    def download(self, url: str, path: Path, *, max_bytes: int) -> None:
        """The body at `url` as the file `path`, whole or not at all. Raises as `get`."""
        with durable.writing(path) as file:
            self._ask(url, file, lambda: None, max_bytes)

    def stop(self) -> None:
        """Wake every thread that waits: its `get` raises Stopped."""
        self._stop.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        for session in self._sessions:
            session.close()

    def _ask(self, url: str, body: BinaryIO, finish: Callable[[], T], max_bytes: int) -> T:
        """Fill `body` and return `finish()`, with as many attempts as patience allows."""
        reason = ""
        for attempt in range(self._patience.attempts):
            self._wait_for_turn()
            pause_s = self._patience.backoff_s * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - jitter, no secret
            status, asked_s = 0, 0.0
            try:
                status, asked_s = self._attempt(url, body, max_bytes)
                if FIREWALL in _beginning(body):
                    reason = TOO_FAST
                elif status == 200:
                    return finish()
                else:
                    reason = f"HTTP {status}"
            except (InvalidURL, InvalidSchema, MissingSchema) as error:
                raise Refused("not a URL of the web") from error
            except requests.RequestException as error:
                status, reason = 0, f"network: {type(error).__name__}"
            except ValueError as error:
                reason = f"broken answer: {error}"
            if status not in (0, 200, *TRY_AGAIN) and reason != TOO_FAST:
                raise (NotFound if status in GONE else TurnedAway)(reason)
            if asked_s > self._patience.longest_wait_s:
                raise ComeBackLater(f"{reason}, to be asked again in {asked_s:.0f} s")
            pause_s = max(min(pause_s, self._patience.longest_wait_s), asked_s)
            if status in SLOW_DOWN or reason == TOO_FAST:
                self._turns.pause(pause_s)  # the next turn comes after it
            elif attempt + 1 < self._patience.attempts:
                self._sleep(pause_s)
        raise GaveUp(reason)

    def _attempt(self, url: str, body: BinaryIO, max_bytes: int) -> tuple[int, float]:
        """Fill `body` (of an error only its beginning); the status and the seconds of Retry-After. Raises Refused."""
        body.seek(0)
        body.truncate()
        give_up_at = time.monotonic() + SLOWEST * self._patience.read_s
        with self._session().get(url, stream=True, timeout=(CONNECT_S, self._patience.read_s)) as response:
            for chunk in response.iter_content(CHUNK_BYTES):  # raises when the body ends before its Content-Length
                body.write(chunk)
                if response.status_code != 200:
                    break
                if body.tell() > max_bytes:
                    raise Refused(f"larger than {max_bytes / 1e6:g} MB")
                if time.monotonic() > give_up_at:
                    raise requests.Timeout("too slow")
            return response.status_code, seconds_of(response.headers.get("Retry-After", ""))

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:  # a Session is not promised to be safe for several threads
            session = self._local.session = requests.Session()
            session.headers["User-Agent"] = self._user_agent
            self._sessions.append(session)
        return session

    def _wait_for_turn(self) -> None:
        self._sleep(self._turns.take())
        while self._turns.paused():
            self._sleep(self._turns.take())

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped("the run is ending")


def seconds_of(retry_after: str) -> float:
    """The seconds that a Retry-After asks for, a number or a date (RFC 9110, section 10.2.3); 0 if it says nothing."""
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        date = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _beginning(body: BinaryIO) -> bytes:
    body.seek(0)
    return body.read(2000)
