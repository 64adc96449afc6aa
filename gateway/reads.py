"""How long a client may take to send: a thread that waits for bytes must not wait for ever, however slowly they drip.

A read that is past its limit sees the end of the stream. The gunicorn worker calls `expire` about once a second.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Reads:
    """The reads under way, each with the time (of time.monotonic()) at which it is cut off."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: dict[object, tuple[float, Callable[[], socket.socket]]] = {}

    def begin(self, key: object, at: float, sock: Callable[[], socket.socket]) -> None:
        """Cut the read `key` off at `at`; `sock` tells its socket then, because TLS puts another one in its place."""
        with self._lock:
            self._limits[key] = at, sock

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._limits)

    def end(self, key: object) -> None:
        """The read `key` is done."""
        with self._lock:
            self._limits.pop(key, None)

    @contextmanager
    def limited(self, sock: socket.socket | None, at: float) -> Iterator[None]:
        """Cut reads from `sock` off at `at`, for the time of the block."""
        if sock is None:  # no real connection, as in some tests
            yield
            return
        self.begin(sock, at, lambda: sock)
        try:
            yield
        finally:
            self.end(sock)

    def expire(self) -> None:
        """Cut off what is past its limit."""
        now = time.monotonic()
        with self._lock:
            late = [key for key, (at, _) in self._limits.items() if at < now]
            socks = [self._limits.pop(key)[1]() for key in late]
        for sock in socks:
            with suppress(OSError):
                # Not SSLSocket.shutdown, which would take TLS away under the thread that reads.
                socket.socket.shutdown(sock, socket.SHUT_RD)


heads, bodies = Reads(), Reads()
