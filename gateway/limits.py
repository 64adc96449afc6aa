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

    Who would be answered too late is turned away at once: requests inside, times what each of them lately added to the
    model's time (Little's law), have to fit into SHARE of what the request has left. So those with little time take no
    place from others, and a model that is full works for nobody who has stopped waiting. Nor does anybody queue who
    would wait in vain: the places that come free in `max_wait_s` are for those who were first.
    """

    SHARE: Final = 0.7  # the rest is for reading, decoding and the unforeseen
    LEAST: Final = 4  # so many are let in whatever is foreseen: only answers teach
    WEIGHT: Final = 0.1  # of each answer in the average

    def __init__(self, places: int, *, max_waiting: int, max_wait_s: float) -> None:
        self._places = places
        self.taken = 0
        self._each_s = 0.0  # what one more request inside adds to the model's time
        self._max_waiting = max_waiting
        self._max_wait_s = max_wait_s
        self._lock = threading.Lock()
        self._queue: deque[threading.Event] = deque()

    @contextmanager
    def place(self, deadline: Deadline) -> Iterator[None]:
        """A place for the time of the block. Raises Overloaded, or Expired when the deadline passes while waiting."""
        self._enter(deadline.left_s)
        try:
            if deadline.passed:
                raise Expired
            yield
        finally:
            self._leave()

    def _enter(self, left_s: float) -> None:
        with self._lock:
            if self.taken >= self.LEAST and (self.taken + 1) * self._each_s > self.SHARE * left_s:
                raise Overloaded("the model has too much to do to answer in time")
            if self.taken < self._places and not self._queue:
                self.taken += 1
                return
            waiting = len(self._queue)
            if waiting >= self._max_waiting or waiting * self._each_s >= self._max_wait_s:
                raise Overloaded("the gateway is full")
            turn = threading.Event()
            self._queue.append(turn)
        if turn.wait(min(self._max_wait_s, left_s)):
            return
        with self._lock:
            if turn.is_set():  # the place was handed over just now
                return
            self._queue.remove(turn)
        raise Overloaded("the gateway is full")

    def _leave(self) -> None:
        with self._lock:
            self.taken -= 1
            while self._queue and self.taken < self._places:
                self.taken += 1
                self._queue.popleft().set()

    def learn(self, took_s: float, inside: int, *, answered: bool) -> None:
        """Tell what the model took while so many were `inside` at first; not `answered` is at least that long."""
        with self._lock:
            each_s = took_s / inside
            if answered or each_s > self._each_s:
                self._each_s += self.WEIGHT * (each_s - self._each_s)


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
