"""The manners of the HTTP client that do not need the museum."""

import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from tests.training.fake_met import FakeMet, Fault
from training.web import FetchError, GaveUp, NotFound, Patience, Refused, Stopped, TurnedAway, Turns, Web, seconds_of


def test_turns_give_a_burst_and_then_the_rate() -> None:
    turns = Turns(rate=10, burst=3)
    waits = [turns.take() for _ in range(6)]
    assert waits[:3] == [0, 0, 0]
    assert waits[3:] == pytest.approx([0.1, 0.2, 0.3], abs=0.02)


def test_pause_holds_every_turn_and_halves_the_rate_once() -> None:
    turns = Turns(rate=10, burst=3)
    for _ in range(8):  # eight threads refused together
        turns.pause(2)
    assert turns.paused()
    assert [turns.take() for _ in range(3)] == pytest.approx([2.2, 2.4, 2.6], abs=0.02)


def test_rate_comes_back_after_a_pause() -> None:
    turns = Turns(rate=1000, burst=1)
    turns.pause(0)
    assert turns.take() > 1 / 1000
    waits = [turns.take() for _ in range(500)]
    assert waits[-1] - waits[-2] == pytest.approx(1 / 1000, rel=0.1)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("0", 0), ("120", 120), (" 7 ", 7), ("", 0), ("soon", 0), ("-5", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0)],
)
def test_retry_after_in_seconds_or_nonsense(header: str, seconds: float) -> None:
    assert seconds_of(header) == seconds


@pytest.mark.parametrize("usegmt", [True, False])
def test_retry_after_as_a_date(usegmt: bool) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=usegmt)
    assert seconds_of(date) == pytest.approx(90, abs=1.5)


def client(**patience: float) -> Web:
    return Web(user_agent="tests", rate=1000, patience=Patience(**({"backoff_s": 0.001} | patience)))  # type: ignore[arg-type]


def test_waits_between_attempts_double() -> None:
    with FakeMet() as met, client(backoff_s=0.1, attempts=4) as web:
        met.always["/x"] = Fault(500, b"")
        with pytest.raises(GaveUp, match="HTTP 500"):
            web.get(f"{met.address}/x", bytes, max_bytes=10)
        gaps = [later.at - earlier.at for earlier, later in zip(met.requests, met.requests[1:], strict=False)]
    assert [0.05 * 2**n <= gap <= 0.15 * 2**n + 0.1 for n, gap in enumerate(gaps)] == [True] * 3


@pytest.mark.parametrize(("status", "error", "final"), [(410, NotFound, True), (403, TurnedAway, False)])
def test_a_refusal_by_status_is_not_tried_again(status: int, error: type[FetchError], final: bool) -> None:
    with FakeMet() as met, client() as web:
        met.always["/x"] = Fault(status, b"")
        with pytest.raises(error, match=f"HTTP {status}"):
            web.get(f"{met.address}/x", bytes, max_bytes=10)
        assert len(met.requests) == 1
    assert issubclass(error, Refused) is final


def test_refused_connection_is_tried_again_and_given_up() -> None:
    with FakeMet() as met:
        address = met.address
    with client(attempts=2) as web, pytest.raises(GaveUp, match="network: ConnectionError"):
        web.get(f"{address}/x", bytes, max_bytes=10)


def test_stop_wakes_a_thread_that_waits_for_minutes() -> None:
    raised: list[type[BaseException]] = []
    with FakeMet() as met, client() as web:
        met.always["/x"] = Fault(503, b"", {"Retry-After": "200"})

        def ask() -> None:
            try:
                web.get(f"{met.address}/x", bytes, max_bytes=10)
            except Stopped as error:
                raised.append(type(error))

        thread = threading.Thread(target=ask)
        thread.start()
        while not met.requests:
            time.sleep(0.005)
        time.sleep(0.05)
        web.stop()
        thread.join(timeout=2)
    assert raised == [Stopped]


def test_pause_holds_a_thread_that_already_had_its_turn() -> None:
    met = FakeMet()
    with met, Web(user_agent="tests", rate=5) as web:  # five at once, the sixth 0.2 s later
        met.delay_s = 0.05
        met.files["/x"] = b"x"
        met.faults["/x"] = [Fault(429, b"", {"Retry-After": "1"})]
        threads = [
            threading.Thread(target=web.get, args=(f"{met.address}/x", bytes), kwargs={"max_bytes": 9})
            for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert met.requests[5].at - met.requests[0].at >= 1
