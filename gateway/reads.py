"""How long a client may take to send: a thread that waits for bytes must not wait for ever, however slowly they drip.

A read that is past its limit sees the end of the stream. The gunicorn worker calls `expire` about once a second.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

HURRY_S: Final = 2.0  # how long a read may take to get going when others need its place
LEAST_RATE: Final = 32 * 1024  # bytes a second that have to come then


@dataclass(eq=False)
class Read:
    """A read under way. All times are of time.monotonic()."""

    at: float  # when it is cut off
    sock: Callable[[], socket.socket]  # asked only then, because TLS puts another one in its place
    begun: float = field(default_factory=time.monotonic)
    received: int = 0  # bytes so far
    cut: bool = False

    def is_slow(self, now: float) -> bool:
        """Whether less came than LEAST_RATE brings in the time since HURRY_S after the beginning."""
        return self.received < (now - self.begun - HURRY_S) * LEAST_RATE


class Reads:
    """The reads under way."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reads: dict[object, Read] = {}

    def begin(self, key: object, at: float, sock: Callable[[], socket.socket]) -> Read:
        """Cut the read `key` off at `at`; `sock` tells its socket then."""
        read = Read(at, sock)
        with self._lock:
            self._reads[key] = read
        return read

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._reads)

    def end(self, key: object) -> None:
        """The read `key` is done."""
        with self._lock:
            self._reads.pop(key, None)

    @contextmanager
    def limited(self, sock: socket.socket | None, at: float) -> Iterator[Read]:
        """Cut reads from `sock` off at `at`, for the time of the block."""
        if sock is None:  # no real connection, as in some tests
            yield Read(at, socket.socket)
            return
        read = self.begin(sock, at, lambda: sock)
        try:
            yield read
        finally:
            self.end(sock)

    def expire(self) -> None:
        """Cut off what is past its limit."""
        now = time.monotonic()
        self._cut(lambda read: read.at < now)

    def hurry(self) -> None:
        """Cut off what is slow: others need its place."""
        now = time.monotonic()
        self._cut(lambda read: read.is_slow(now))

    def _cut(self, which: Callable[[Read], bool]) -> None:
        with self._lock:
            chosen = {key: read for key, read in self._reads.items() if which(read)}
            for key, read in chosen.items():
                del self._reads[key]
                read.cut = True
        for read in chosen.values():
            with suppress(OSError):
                # Not SSLSocket.shutdown, which would take TLS away under the thread that reads.
                socket.socket.shutdown(read.sock(), socket.SHUT_RD)


# The rest of a body that was refused has no place among the requests: no reason to hurry it.
heads, bodies, rests = Reads(), Reads(), Reads()
