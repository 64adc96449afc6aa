"""Predictions sent all the time while a test breaks something, and what came back."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx

from tests.system import PICTURES

PICTURE: Final = min(PICTURES, key=lambda path: path.stat().st_size)
# In place of a status
REFUSED: Final = 0  # no connection: nobody had accepted the request
CUT_OFF: Final = 1  # a connection, but no answer


@dataclass
class Answers:
    """Statuses in the order in which they came, with the time of each (time.monotonic)."""

    seen: list[tuple[float, int, float]] = field(default_factory=list)  # when, status, seconds

    def statuses(self, since: float = 0.0) -> Counter[int]:
        """How often each status came, after a moment."""
        return Counter(status for when, status, _ in self.seen if when >= since)

    def slowest_s(self) -> float:
        """Seconds of the slowest answer."""
        return max(seconds for _, _, seconds in self.seen)


@contextmanager
def predicting(url: str, *, callers: int = 4, pause_s: float = 0.05, timeout_s: float = 15) -> Iterator[Answers]:
    """`callers` threads that each send a picture, wait for the answer, pause, and again; until the block ends."""
    answers, stop, picture = Answers(), threading.Event(), PICTURE.read_bytes()

    def call() -> None:
        with httpx.Client(timeout=httpx.Timeout(timeout_s, connect=3)) as client:
            while not stop.is_set():
                begin = time.monotonic()
                try:
                    headers = {"Content-Type": "image/jpeg"}
                    status = client.post(f"{url}/v1/predict", content=picture, headers=headers).status_code
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    status = REFUSED
                except httpx.TransportError:
                    status = CUT_OFF
                now = time.monotonic()
                answers.seen.append((now, status, now - begin))
                stop.wait(pause_s)

    threads = [threading.Thread(target=call) for _ in range(callers)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def until(what: str, condition: Callable[[], bool], limit_s: float = 60, every_s: float = 0.2) -> float:
    """Wait for a condition; gives the seconds that took. Fails with `what` when the limit has passed."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < limit_s, f"not within {limit_s:g} s: {what}"
        time.sleep(every_s)
    return time.monotonic() - begin


def answers_200(url: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        return httpx.get(url, timeout=8).status_code == 200
    except httpx.TransportError:
        return False


def main(url: str, callers: str, stop: str) -> None:
    """For a host of its own: load until the file `stop` appears, then a line for each status."""
    with predicting(url, callers=int(callers)) as answers:
        while not Path(stop).exists():
            time.sleep(0.1)
    print("\n".join(str(status) for status in answers.statuses().elements()))


if __name__ == "__main__":
    main(*sys.argv[1:])
