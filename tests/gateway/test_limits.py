"""Bounded work: places, a fair and short queue, bytes; beyond them an answer at once, and probes always."""

import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
from flask import Flask

from gateway import explanations
from gateway.classify import Classifier
from gateway.client import PredictionClient
from gateway.context import Context, Deadline
from gateway.errors import Expired, Overloaded, TooLarge
from gateway.heatmaps import Heatmap
from gateway.limits import ByteBudget, Gate, Slots
from gateway.metrics import Metrics
from gateway.settings import Settings
from serving.images import Picture
from tests.fakes import FaultyModelServer, Hang, good
from tests.gateway.conftest import noise, picture
from tests.gateway.processes import Gateway

SOON = Deadline.after(1000)


def test_a_full_gate_says_so_at_once() -> None:
    gate = Gate(1, max_waiting=0, max_wait_s=60)
    with gate.place(SOON), pytest.raises(Overloaded), gate.place(SOON):
        pass
    with gate.place(SOON):
        pass


def test_the_queue_of_a_gate_is_short_in_time() -> None:
    gate = Gate(1, max_waiting=1, max_wait_s=0.05)
    with gate.place(SOON), pytest.raises(Overloaded), gate.place(SOON):
        pass


def test_the_queue_of_a_gate_is_fair() -> None:
    gate = Gate(1, max_waiting=5, max_wait_s=30)
    order: list[int] = []

    def wait(number: int) -> None:
        with gate.place(SOON):
            order.append(number)

    threads = [threading.Thread(target=wait, args=(number,)) for number in range(5)]
    with gate.place(SOON):
        for waiting, thread in enumerate(threads):
            thread.start()
            while len(gate._queue) <= waiting:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_a_gate_keeps_its_number_of_places() -> None:
    gate = Gate(3, max_waiting=100, max_wait_s=30)
    inside, most = threading.Semaphore(3), []

    def work(_: int) -> None:
        with gate.place(SOON):
            most.append(inside.acquire(blocking=False))
            inside.release()

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(work, range(200)))
    assert all(most)
    assert gate.taken == 0


def test_an_expired_request_gets_no_place() -> None:
    gate = Gate(1, max_waiting=1, max_wait_s=1)
    with pytest.raises(Expired), gate.place(Deadline.after(0)):
        pass
    assert gate.taken == 0


def test_who_would_be_answered_too_late_is_turned_away_at_once() -> None:
    gate = Gate(64, max_waiting=64, max_wait_s=1)
    for _ in range(100):
        gate.learn(2.0, 8, answered=True)  # four a second
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(gate.place(Deadline.after(10)))
        begun = time.monotonic()
        with pytest.raises(Overloaded, match="too much to do"), gate.place(Deadline.after(3)):  # 9 of 4 a second
            pass
        assert time.monotonic() < begun + 0.5
        stack.enter_context(gate.place(Deadline.after(4)))
    for _ in range(100):
        gate.learn(0.01, 4, answered=False)  # who gave it no time proves nothing
    assert gate._each_s == pytest.approx(0.25, rel=0.01)


def test_nobody_queues_who_would_wait_in_vain() -> None:
    gate = Gate(1, max_waiting=100, max_wait_s=30)
    for _ in range(200):
        gate.learn(12, 1, answered=True)  # a place every 12 s: three may wait for half a minute, a fourth may not

    def wait() -> None:
        with gate.place(SOON):
            pass

    with ThreadPoolExecutor(3) as pool:
        with gate.place(SOON):
            waiting = [pool.submit(wait) for _ in range(3)]
            while len(gate._queue) < 3:
                time.sleep(0.001)
            begun = time.monotonic()
            with pytest.raises(Overloaded, match="full"), gate.place(SOON):
                pass
            assert time.monotonic() < begun + 15
        for each in waiting:  # they had hope, and rightly
            each.result()


def test_a_few_are_let_in_whatever_is_foreseen() -> None:
    gate = Gate(64, max_waiting=0, max_wait_s=0)
    gate.learn(1000.0, 1, answered=True)
    with ExitStack() as stack:
        for _ in range(Gate.LEAST):
            stack.enter_context(gate.place(Deadline.after(1)))
        with pytest.raises(Overloaded), gate.place(Deadline.after(1)):
            pass
        for _ in range(200):  # and teach it better
            gate.learn(0.01, Gate.LEAST, answered=True)
        stack.enter_context(gate.place(Deadline.after(1)))


def test_bytes_are_given_back() -> None:
    budget = ByteBudget(100)
    with budget.account() as first:
        first.hold(60)
        with budget.account() as second:
            second.hold(40)
            with pytest.raises(Overloaded):
                second.hold(1)
        first.hold(40)
    with budget.account() as third:
        third.hold(100)


def test_bytes_are_held_for_a_time() -> None:
    with ByteBudget(100).account() as account:
        with account.holding(60):
            assert account.held == 60
        account.hold(100)


def test_a_request_that_can_never_have_its_bytes_is_not_told_to_come_again() -> None:
    budget = ByteBudget(100)
    with budget.account() as first, budget.account() as second:
        first.hold(60)
        with pytest.raises(TooLarge, match="more than 100 bytes"):
            first.hold(41)
        with pytest.raises(Overloaded):
            second.hold(41)


def test_a_slot_is_waited_for_until_the_deadline() -> None:
    slots = Slots(1)
    with slots.slot(SOON), pytest.raises(Expired), slots.slot(Deadline.after(0.01)):
        pass


def test_bodies_share_a_budget_of_bytes(make_app: Callable[..., Flask]) -> None:
    http = make_app(max_upload_bytes=2000, max_body_bytes=2000, max_held_bytes=500_000).test_client()
    assert http.post("/v1/predict", data=b"\0" * 2000).status_code == 415
    assert http.post("/v1/predict", data=picture()).status_code == 200


def test_beyond_the_limits_503_while_probes_and_metrics_answer(
    start: Callable[..., Gateway], server: FaultyModelServer
) -> None:
    gateway = start(max_in_flight=4, max_waiting=2, max_wait_s=0.05)
    gateway.wait_for_status("/readyz", 200)
    server.behaviour = hang = Hang()
    with ThreadPoolExecutor(4) as pool:
        accepted = [pool.submit(gateway.http.post, "/v1/predict", content=picture()) for _ in range(4)]
        for _ in accepted:
            assert hang.waiting.acquire(timeout=10)
        took, waits = [], set()
        for _ in range(20):
            begun = time.monotonic()
            answer = gateway.http.post("/v1/predict", content=noise((200, 200)))
            took.append(time.monotonic() - begun)
            assert (answer.status_code, answer.json()["type"]) == (503, "/problems/overloaded")
            waits.add(answer.headers["Retry-After"])
        assert len(waits) > 1  # jitter
        assert sorted(took)[10] < 0.1
        for path in ("/healthz", "/readyz", "/metrics", "/"):
            assert gateway.http.get(path).status_code == 200
        assert gateway.metric("whence_inflight_requests") == 4
        hang.let_go.set()
        assert [each.result().status_code for each in accepted] == [200] * 4
    assert gateway.metric("whence_rejected_total", reason="overloaded") == 20


def test_at_five_times_capacity_goodput_stays(start: Callable[..., Gateway], server: FaultyModelServer) -> None:
    """A model that answers 4 at a time in 200 ms makes 20 a second; 40 clients that come back soon want 100."""
    gateway = start(max_in_flight=8, max_waiting=8)
    model = threading.Semaphore(4)

    def answer(request: object, context: object) -> object:
        with model:
            time.sleep(0.2)
            return good(request)  # type: ignore[arg-type]

    server.behaviour = answer  # type: ignore[assignment]
    end = time.monotonic() + 5
    data = picture()

    def client(_: int) -> list[int]:
        statuses = []
        while time.monotonic() < end:
            statuses.append(gateway.http.post("/v1/predict", content=data).status_code)
            if statuses[-1] == 503:
                time.sleep(0.3)
        return statuses

    with ThreadPoolExecutor(40) as pool:
        statuses = [status for each in pool.map(client, range(40)) for status in each]
    assert set(statuses) == {200, 503}
    print(f"{statuses.count(200)} answered, {statuses.count(503)} refused")
    assert statuses.count(200) >= 0.5 * 20 * 5  # on a quiet machine more than nine tenths


def statuses_of(gateway: Gateway, clients: int, seconds: float, **headers: str) -> list[int]:
    """What as many clients as that are told after the first half of the time; who is refused waits a little."""
    data, begun = picture(), time.monotonic()

    def client(_: int) -> list[int]:
        statuses = []
        while (now := time.monotonic() - begun) < seconds:
            status = gateway.http.post("/v1/predict", content=data, headers=headers).status_code
            if now >= seconds / 2:
                statuses.append(status)
            if status == 503:
                time.sleep(0.3)
        return statuses

    with ThreadPoolExecutor(clients) as pool:
        return [status for them in pool.map(client, range(clients)) for status in them]


def test_requests_with_little_time_do_not_all_come_too_late(
    start: Callable[..., Gateway], server: FaultyModelServer
) -> None:
    """A model that makes 20 a second, 24 clients that give it 0.6 s: all at once would all come too late."""
    gateway, turn = start(max_in_flight=64, max_waiting=0), threading.Lock()

    def answer(request: object, context: object) -> object:
        with turn:
            time.sleep(0.05)
            return good(request)  # type: ignore[arg-type]

    server.behaviour = answer  # type: ignore[assignment]
    statuses = statuses_of(gateway, 24, 8, **{"X-Request-Timeout": "0.6"})
    print(Counter(statuses))
    assert statuses.count(200) >= 0.5 * 20 * 4  # none where everybody is let in


def test_who_gives_little_time_takes_no_places_from_others(
    start: Callable[..., Gateway], server: FaultyModelServer
) -> None:
    """A model that takes 0.24 s and is never full; 8 clients give it hardly more than that, 24 have time."""
    gateway = start()

    def answer(request: object, context: object) -> object:
        time.sleep(0.24)
        return good(request)  # type: ignore[arg-type]

    server.behaviour = answer  # type: ignore[assignment]
    with ThreadPoolExecutor(1) as pool:
        hasty = pool.submit(statuses_of, gateway, 8, 6, **{"X-Request-Timeout": "0.25"})
        statuses = statuses_of(gateway, 24, 6)
        print(Counter(statuses), Counter(hasty.result()))
    assert set(statuses) == {200}


def test_a_connection_is_kept_through_refusals_of_large_pictures(start: Callable[..., Gateway]) -> None:
    """The body was never read; the next request on the same connection has to be answered all the same."""
    gateway = start(max_in_flight=1, max_waiting=0, request_timeout_s=30)
    with socket.create_connection(("127.0.0.1", gateway.port)) as busy:
        busy.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")  # and never the body
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
        statuses: list[int] = []
        while statuses.count(503) < 5 and len(statuses) < 50:
            connection.request("POST", "/v1/predict", body=bytes(500_000))
            reply = connection.getresponse()
            reply.read()
            statuses.append(reply.status)
        connection.close()
    assert statuses.count(503) == 5


def classifier(**options: int) -> Classifier:
    """One that is not asked further than its decoders."""
    settings, metrics = Settings(**options), Metrics()  # type: ignore[arg-type]
    return Classifier(settings, PredictionClient(settings, metrics), metrics)


def test_large_pictures_in_a_row_keep_no_decoder_from_small_ones() -> None:
    one = classifier(decode_threads=1)
    large = picture(format="PNG", size=(3000, 3000))
    with one.large.slot(SOON), ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(one.decode, [large], Context("large", Deadline.after(2)))
        small = pool.submit(one.decode, [picture()], Context("small", SOON))
        assert small.result()[0].shape == (224, 224, 3)  # type: ignore[union-attr]
        with pytest.raises(Expired):
            waiting.result()


@pytest.mark.parametrize(
    "what", [explanations.preview, lambda each: Heatmap(np.eye(14, dtype=np.float32)).overlay(each, "")]
)
def test_what_is_drawn_of_large_pictures_waits_its_turn_too(what: Callable[[Picture], object]) -> None:
    one, large = classifier(decode_threads=2), picture(format="PNG", size=(3000, 3000))
    with one.large.slot(SOON), pytest.raises(Expired):
        one.make(large, Context("large", Deadline.after(0.3)), what)
    assert one.make(large, Context("large", SOON), what)


def test_a_batch_stops_at_its_deadline() -> None:
    with pytest.raises(Expired):
        classifier().decode([picture()] * 3, Context("late", Deadline.after(0)))
