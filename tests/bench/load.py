"""Many callers of one HTTP address: in a closed loop (each waits for its answer) or an open one (a fixed rate).

Only the standard library: a caller costs a thread and a fifth of a millisecond of CPU per request.
"""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import quantiles
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 20.0
MOST_AT_ONCE = 512  # open loop: callers beyond that are not sent, and counted as such
WARM_UP_S = 2.0  # closed loop: answers in this time are not counted


@dataclass(frozen=True)
class Body:
    """One request's body."""

    content: bytes
    content_type: str


@dataclass
class Outcome:
    """What came back within the time that counts."""

    seconds: float
    answers: Counter[str] = field(default_factory=Counter)  # by status, or by the name of the error
    good_s: list[float] = field(default_factory=list)  # durations of the answers 200
    refused_s: list[float] = field(default_factory=list)  # durations of the answers 503

    def add(self, answer: str, duration_s: float) -> None:
        self.answers[answer] += 1
        if answer == "200":
            self.good_s.append(duration_s)
        elif answer == "503":
            self.refused_s.append(duration_s)

    def summary(self) -> dict[str, Any]:
        """Rates per second, durations in milliseconds."""
        return {
            "rps": round(self.answers["200"] / self.seconds, 2),
            "p50_ms": _percentile(self.good_s, 50),
            "p99_ms": _percentile(self.good_s, 99),
            "refused_p99_ms": _percentile(self.refused_s, 99),
            "answers": dict(self.answers),
        }


class Caller:
    """One connection, opened again after an error."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = parts.path or "/"
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)

    def ask(self, body: Body) -> str:
        """The status as text, or the name of the error."""
        try:
            self._connection.request("POST", self._path, body.content, {"Content-Type": body.content_type})
            reply = self._connection.getresponse()
            reply.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            return type(error).__name__
        return str(reply.status)

    def close(self) -> None:
        self._connection.close()


def closed_loop(
    url: str, bodies: Sequence[Body], *, callers: int, seconds: float, warm_up: float = WARM_UP_S
) -> Outcome:
    """`callers` threads, each sending its next request when the last one is answered."""
    outcome, lock = Outcome(seconds), threading.Lock()
    begin = time.monotonic() + warm_up
    end = begin + seconds

    def call(number: int) -> None:
        caller, turn = Caller(url), number
        while (start := time.monotonic()) < end:
            answer = caller.ask(bodies[turn % len(bodies)])
            now, turn = time.monotonic(), turn + 1
            if begin <= now < end:
                with lock:
                    outcome.add(answer, now - start)
        caller.close()

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def open_loop(url: str, bodies: Sequence[Body], *, rate: float, seconds: float) -> Outcome:
    """`rate` requests per second whether or not answers come. A duration starts when the request was due."""
    outcome, lock, local = Outcome(seconds), threading.Lock(), threading.local()
    places = threading.Semaphore(MOST_AT_ONCE)

    def call(due: float, body: Body) -> None:
        try:
            if not hasattr(local, "caller"):
                local.caller = Caller(url)
            answer = local.caller.ask(body)
            with lock:
                outcome.add(answer, time.monotonic() - due)
        finally:
            places.release()

    begin = time.monotonic()
    with ThreadPoolExecutor(MOST_AT_ONCE) as pool:
        for number in range(int(rate * seconds)):
            due = begin + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            if places.acquire(blocking=False):
                pool.submit(call, due, bodies[number % len(bodies)])
            else:
                with lock:
                    outcome.add("not sent", 0.0)
    # Answers that came after the last request was sent count, so does the time they took.
    outcome.seconds = max(seconds, time.monotonic() - begin)
    return outcome


def _percentile(durations_s: Sequence[float], percent: int) -> float | None:
    if not durations_s:
        return None
    cuts = quantiles(durations_s, n=100, method="inclusive") if len(durations_s) > 1 else [durations_s[0]] * 99
    return round(1000 * cuts[percent - 1], 1)
