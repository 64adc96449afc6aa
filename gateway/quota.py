"""Rate limits: how many requests a client may make, as a token bucket for each, with the headers that tell it so."""

import math
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

MOST_CLIENTS: Final = 10_000  # remembered; who has not been seen for longest starts anew


@dataclass(frozen=True)
class Allowance:
    """What a client has left."""

    granted: bool
    remaining: int  # requests
    reset_s: int  # seconds until there is one more, at least 1

    def headers(self, quota: "Quota") -> dict[str, str]:
        """The fields of draft-ietf-httpapi-ratelimit-headers."""
        return {
            "RateLimit-Policy": f'"default";q={quota.burst};w={quota.window_s}',
            "RateLimit": f'"default";r={self.remaining};t={self.reset_s}',
        }


class Quota:
    """`rate` requests a second in the long run for each client, `burst` at once."""

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self.burst = burst
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when that was

    @property
    def window_s(self) -> int:
        """Seconds in which an empty bucket fills."""
        return max(1, math.ceil(self.burst / self._rate))

    def take(self, client: str) -> Allowance:
        """Take a token of `client`, if it has one."""
        with self._lock:
            now = time.monotonic()
            tokens, then = self._buckets.pop(client, (float(self.burst), now))
            tokens = min(float(self.burst), tokens + (now - then) * self._rate)
            granted = tokens >= 1
            tokens -= granted
            self._buckets[client] = tokens, now
            if len(self._buckets) > MOST_CLIENTS:
                self._buckets.popitem(last=False)
        until_next_s = max(0.0, 1 - tokens % 1) / self._rate
        return Allowance(granted, int(tokens), max(1, math.ceil(until_next_s)))
