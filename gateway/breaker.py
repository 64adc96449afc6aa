"""A circuit breaker for one model server: after some failures in a row it is left alone until a probe finds it well."""

import threading
import time
from typing import Final

FAILURES_TO_OPEN: Final = 5
FIRST_REST_S: Final = 0.5
LONGEST_REST_S: Final = 15.0


class Breaker:
    """Closed while all is well; open after FAILURES_TO_OPEN failures in a row.

    An open breaker asks for a probe after a rest that doubles each time the probe fails: half open. Requests of clients
    never serve as probes, so a server that swallows calls costs nobody their answer.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures = 0
        self._rest_s = FIRST_REST_S
        self._opened: float | None = None  # time.monotonic() of opening, None while closed

    @property
    def closed(self) -> bool:
        """Whether requests may go through."""
        return self._opened is None

    @property
    def wants_probe(self) -> bool:
        """Whether it has rested long enough to be tried."""
        opened = self._opened
        return opened is not None and time.monotonic() >= opened + self._rest_s

    def success(self) -> bool:
        """Count an answer or a good probe. Returns whether this closed the breaker."""
        with self._lock:
            self._failures = 0
            self._rest_s = FIRST_REST_S
            was_open, self._opened = self._opened is not None, None
            return was_open

    def failure(self) -> bool:
        """Count a failure or a bad probe. Returns whether this opened the breaker."""
        with self._lock:
            self._failures += 1
            if self._opened is not None:
                self._opened = time.monotonic()
                self._rest_s = min(2 * self._rest_s, LONGEST_REST_S)
                return False
            if self._failures < FAILURES_TO_OPEN:
                return False
            self._opened = time.monotonic()
            return True
