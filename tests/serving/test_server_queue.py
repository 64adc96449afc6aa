"""The queue before the runs: who waits, in which order, who is turned away, and who leaves."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.serving.queueing import BATCHES, ROW, WAITING, batched, held
from tests.serving.running import Client, failure, running, wait_until

pytestmark = pytest.mark.training


@pytest.fixture
def narrow(base_path: Path, tmp_path: Path) -> Iterator[Client]:
    """A server that runs one row at a time and lets two wait."""
    with running(
        batched(base_path, tmp_path, "max_batch_size { value: 1 } max_enqueued_batches { value: 2 }")
    ) as client:
        yield client


def test_a_full_queue_turns_requests_away_at_once(narrow: Client) -> None:
    busy = held(narrow, 0.6)
    waiting = [narrow.begin({"seconds": np.float32([0])}, "busy") for _ in range(2)]
    wait_until(lambda: narrow.metric(WAITING, model_name="zoo") == 2, "two requests are waiting")
    start = time.monotonic()
    code, text = narrow.refused({"seconds": np.float32([0])}, "busy")
    assert time.monotonic() - start < 0.3
    assert (code, text) == ("UNAVAILABLE", "the queue of model 'zoo' is full: 2 of 2 rows are waiting")
    assert all(call.result() for call in [busy, *waiting])
    assert narrow.metric("whence_server_queue_rejected", model_name="zoo") == 1


def test_a_full_queue_of_one_signature_leaves_room_for_another(narrow: Client) -> None:
    busy = held(narrow, 0.4)
    waiting = [narrow.begin({"seconds": np.float32([0])}, "busy") for _ in range(2)]
    assert narrow.predict({"n": np.int64(3)}, "scalar")["square"] == 9
    assert all(call.result() for call in [busy, *waiting])


def test_a_request_whose_deadline_passes_in_the_queue_is_never_run(narrow: Client) -> None:
    busy = held(narrow, 0.6)
    code, _ = failure(lambda: narrow.predict({"x": ROW}, timeout_s=0.1))
    assert code == "DEADLINE_EXCEEDED"
    wait_until(lambda: narrow.metric(WAITING, model_name="zoo") == 0, "the request has left the queue", 0.4)
    busy.result()
    narrow.predict({"n": np.int64(1)}, "scalar")
    assert narrow.metric(BATCHES, model_name="zoo") == 2


def test_a_cancelled_request_leaves_the_queue_and_makes_room(narrow: Client) -> None:
    busy = held(narrow, 0.6)
    waiting = [narrow.begin({"x": ROW}) for _ in range(2)]
    wait_until(lambda: narrow.metric(WAITING, model_name="zoo") == 2, "two requests are waiting")
    for call in waiting:
        call.cancel()
    wait_until(lambda: narrow.metric(WAITING, model_name="zoo") == 0, "the cancelled requests have left", 0.4)
    busy.result()
    narrow.predict({"n": np.int64(1)}, "scalar")
    assert narrow.metric(BATCHES, model_name="zoo") == 2


def test_a_deadline_that_passes_during_the_run_ends_the_call_but_not_the_server(narrow: Client) -> None:
    assert (
        failure(lambda: narrow.predict({"seconds": np.float32([0.4])}, "busy", timeout_s=0.1))[0] == "DEADLINE_EXCEEDED"
    )
    assert narrow.predict({"n": np.int64(2)}, "scalar")["square"] == 4


def test_waiting_requests_are_served_in_the_order_of_their_arrival(narrow: Client) -> None:
    busy = held(narrow, 0.4)
    order: list[str] = []
    calls = []
    for signature, inputs in [
        ("scalar", {"n": np.int64(1)}),
        ("fixed", {"m": np.eye(2, dtype=np.float32)}),
        ("", None),
    ]:
        call = narrow.begin(inputs or {"x": ROW}, signature)
        call.add_done_callback(lambda _, signature=signature: order.append(signature))
        calls.append(call)
        expected = len(calls)
        wait_until(lambda expected=expected: narrow.metric(WAITING, model_name="zoo") == expected, "it waits")
    for call in [busy, *calls]:
        call.result()
    wait_until(lambda: len(order) == 3, "all are answered")
    assert order == ["scalar", "fixed", ""]


def test_many_callers_that_give_up_leave_nothing_behind(server: Client) -> None:
    stop = threading.Event()

    def impatient(_: int) -> None:
        while not stop.is_set():
            try:
                server.predict({"x": np.ones((2, 2), np.float32)}, timeout_s=0.003)
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED  # noqa: PT017

    with ThreadPoolExecutor(8) as pool:
        callers = [pool.submit(impatient, number) for number in range(8)]
        stop.wait(0.5)
        stop.set()
        for caller in callers:
            caller.result()
    wait_until(lambda: server.metric(WAITING, model_name="zoo") == 0, "nothing waits")
    np.testing.assert_array_equal(server.predict({"x": ROW})["y"], [[3, 3]])
