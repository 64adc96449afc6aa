"""Bounds on what the gateway holds at once: requests, bytes, pictures being decoded.

Beyond them: Overloaded, but TooLarge for a request that would be beyond them alone.
"""

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from gateway.context import Deadline
from gateway.errors import Expired, Overloaded, TooLarge


class Gate:
    """Places for requests and a short queue, first come first served.

    There are at most `places`, and fewer while the model is slow: so few that whoever is let in gets an answer in time.
    The number falls by a tenth when the model took most of a request's time and grows back slowly when it took little
    (additive increase, multiplicative decrease, as TCP does since Jacobson 1988).
    """

    SLOW: Final = 0.7  # share of a request's time
    QUICK: Final = 0.5
    LEAST: Final = 4.0  # places

    def __init__(self, places: int, *, max_waiting: int, max_wait_s: float) -> None:
        self._most = self.places = float(places)
        self._taken = 0
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()

    @contextmanager
    def place(self, deadline: Deadline) -> Iterator[None]:
        """A place for the time of the block. Raises Overloaded, or Expired when the deadline passes while waiting."""
        self._enter(min(self._max_wait_s, deadline.left_s))
        try:
            if deadline.passed:
                raise Expired
            yield
        finally:
            self._leave()

    def _enter(self, wait_s: float) -> None:
        with self._lock:
            if self._taken < int(self.places) and not self._queue:
                self._taken += 1
                return
            if len(self._queue) >= self._max_waiting:
                raise Overloaded("the gateway is full")
            turn = threading.Event()
            self._queue.append(turn)
        if turn.wait(wait_s):
            return
        with self._lock:
            if turn.is_set():  # the place was handed over just now
                return
            self._queue.remove(turn)
        raise Overloaded("the gateway is full")

    def _leave(self) -> None:
        with self._lock:
            self._taken -= 1
            while self._queue and self._taken < int(self.places):
                self._taken += 1
                self._queue.popleft().set()

    def learn(self, share: float) -> None:
        """Tell that the model took `share` of the time that a request has."""
        with self._lock:
            if share > self.SLOW:
                self.places = max(min(self.LEAST, self._most), self.places * 0.9)
            elif share < self.QUICK:
                self.places = min(self._most, self.places + 0.25)


class ByteBudget:
    """The memory that all bodies together may take."""

    def __init__(self, most: int) -> None:
        self.most = self._left = most
        self._lock = threading.Lock()

    @contextmanager
    def account(self) -> Iterator["Account"]:
        """An account for one request; what it holds is given back after the block."""
        account = Account(self)
        try:
            yield account
        finally:
            self._move(account.held)

    def _move(self, amount: int) -> bool:
        with self._lock:
            if self._left + amount < 0:
                return False
            self._left += amount
            return True


class Account:
    """The bytes of one request."""

    def __init__(self, budget: ByteBudget) -> None:
        self._budget = budget
        self.held = 0

    def hold(self, amount: int) -> None:
        """Count `amount` more bytes. Raises TooLarge when this request holds too much, Overloaded when all do."""
        if self.held + amount > self._budget.most:  # to come again later would not help
            raise TooLarge(f"the request takes more than {self._budget.most:,} bytes of memory")
        if not self._budget._move(-amount):
            raise Overloaded("too many bytes are under way")
        self.held += amount

    @contextmanager
    def holding(self, amount: int) -> Iterator[None]:
        """As `hold`, for the time of the block."""
        self.hold(amount)
        try:
            yield
        finally:
            self.held -= amount
            self._budget._move(amount)


class Slots:
    """A number of workers for something short and heavy; who comes later waits until the deadline."""

    def __init__(self, count: int) -> None:
        self._semaphore = threading.BoundedSemaphore(count)

    @contextmanager
    def slot(self, deadline: Deadline) -> Iterator[float]:
        """A slot for the time of the block; yields the seconds waited for it. Raises Expired."""
        start = time.perf_counter()
        if not self._semaphore.acquire(timeout=deadline.left_s):
            raise Expired
        try:
            if deadline.passed:  # without a wait too: the pictures of a batch come here one after the other
                raise Expired
            yield time.perf_counter() - start
        finally:
            self._semaphore.release()
