"""A circuit breaker for one model server: after some failures in a row it is left alone until a probe finds it well."""

import threading
import time
from typing import Final

FAILURES_TO_OPEN: Final = 3
FIRST_REST_S: Final = 0.5
LONGEST_REST_S: Final = 15.0
LONGEST_ABSENCE_S: Final = 2.0  # the same after probes that fail: all gateways hear of its return soon


class Breaker:
    """Closed while all is well; open after FAILURES_TO_OPEN failures in a row.

    An open breaker asks for a probe after a rest: half open. Requests of clients never serve as probes, so a server
    that swallows calls costs nobody their answer. The rest doubles with each probe until a client's request succeeds:
    a server which passes probes but nothing else is tried more and more rarely, up to LONGEST_REST_S; one that is away
    is looked for every LONGEST_ABSENCE_S at least, so that it is not idle for long once it is back.
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

    def success(self) -> None:
        """Count the answer to a client's request."""
        with self._lock:
            self._failures = 0
            if self._opened is None:
                self._rest_s = FIRST_REST_S

    def failure(self, *, at_once: bool = False) -> bool:
        """Count a request that failed; `at_once` opens without waiting for more. Returns whether it opened."""
        with self._lock:
            self._failures += 1
            if self._opened is not None or (self._failures < FAILURES_TO_OPEN and not at_once):
                return False
            self._opened = time.monotonic()
            return True

    def probed(self, well: bool) -> bool:
        """Tell how a probe went. Returns whether this closed the breaker."""
        with self._lock:
            self._rest_s = max(self._rest_s, min(2 * self._rest_s, LONGEST_REST_S if well else LONGEST_ABSENCE_S))
            self._failures = 0
            self._opened = None if well else time.monotonic()
            return well
