"""The budget of second attempts, so that trouble of the model servers is never made worse by asking twice."""

import threading
from typing import Final

SHARE: Final = 0.1  # second attempts for each first one, in the long run
START: Final = 16.0  # tokens at the start: what one lost server may have in its hands
MOST: Final = 64.0  # tokens saved in quiet times


class RetryBudget:
    """A bucket of tokens: each request pays SHARE in, each second attempt takes one out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tokens = START

    @property
    def ratio(self) -> float:
        """How full the bucket is, 0 to 1."""
        return self._tokens / MOST

    def deposit(self) -> None:
        """Count a request."""
        with self._lock:
            self._tokens = min(MOST, self._tokens + SHARE)

    def withdraw(self) -> bool:
        """Take the token for one second attempt; False if there is none."""
        with self._lock:
            if self._tokens < 1:
                return False
            self._tokens -= 1
            return True
