"""Dynamic batching: who shares a run, who waits, who is turned away."""

import gzip
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest

from serving.server import flags
from serving.server.tensorflow_engine import TensorFlowEngine
from serving.server.widths import TwoWidths
from tests.serving.running import Client, failure, running, wait_until

pytestmark = pytest.mark.training

BATCHES = ":tensorflow:serving:batching_session:wrapped_run_count"
QUEUED = ":tensorflow:serving:batching_session:queuing_latency_count"
ASKED = ":tensorflow:serving:batching_session:input_batch_size_sum"
COMPUTED = ":tensorflow:serving:batching_session:processed_batch_size_sum"
WAITING = "whence_server_queue_rows"
ROW = np.ones((1, 2), np.float32)


def unbatched(base_path: Path, folder: Path) -> list[str]:
    """A command line for one model."""
    (folder / "monitoring.config").write_text("prometheus_config { enable: true }")
    return [
        "--model_name=zoo",
        f"--model_base_path={base_path}",
        f"--monitoring_config_file={folder}/monitoring.config",
    ]


def serving(base_path: Path, folder: Path, batching: str) -> list[str]:
    """The same with these batching parameters."""
    (folder / "batching.config").write_text(batching)
    return [*unbatched(base_path, folder), f"--batching_parameters_file={folder}/batching.config"]


@pytest.fixture
def narrow(base_path: Path, tmp_path: Path) -> Iterator[Client]:
    """A server that runs one row at a time and lets two wait."""
    with running(
        serving(base_path, tmp_path, "max_batch_size { value: 1 } max_enqueued_batches { value: 2 }")
    ) as client:
        yield client


def held(client: Client, seconds: float) -> grpc.Future:
    """Keeps the only runner busy, so that what comes after it has to wait."""
    before = client.metric(QUEUED, model_name="zoo")
    call = client.begin({"seconds": np.float32([seconds])}, "busy")
    wait_until(lambda: client.metric(QUEUED, model_name="zoo") > before, "the runner is busy")
    return call


def test_concurrent_callers_of_every_kind_each_get_their_own_rows(server: Client) -> None:
    rng = np.random.default_rng(0)

    def one(number: int) -> bool:
        rows = int(rng.integers(1, 5))
        x = np.full((rows, 2), number, np.float32)
        match number % 4:
            case 0:
                return np.array_equal(server.predict({"x": x})["y"], 2 * x + 1)
            case 1:
                text = [f"caller {number} row {row}".encode() for row in range(rows)]
                return server.predict({"text": text}, "upper")["upper"].tolist() == [line.upper() for line in text]
            case 2:
                z = np.ones((rows, number % 3), np.float32)
                return np.array_equal(server.predict({"x": x, "z": z}, "pair")["sum"], x.sum(1) + z.sum(1))
            case _:
                values = np.int32([number] * rows)
                return server.predict({"values": values}, "distinct")["values"].tolist() == [number]

    with ThreadPoolExecutor(24) as pool:
        assert all(pool.map(one, range(240)))


def test_requests_that_wait_share_one_run(server: Client) -> None:
    busy = held(server, 0.4)
    with ThreadPoolExecutor(4) as pool:
        sizes = [int(rows) for rows in pool.map(lambda _: server.predict({"x": ROW}, "rows")["rows"][0], range(4))]
    busy.result()
    assert sizes == [4, 4, 4, 4]


def test_a_lone_request_does_not_wait_for_company(server: Client) -> None:
    server.predict({"x": ROW})
    start = time.monotonic()
    for _ in range(20):
        server.predict({"x": ROW})
    assert (time.monotonic() - start) / 20 < 0.2


def test_batch_timeout_makes_a_lone_request_wait(base_path: Path, tmp_path: Path) -> None:
    batching = "max_batch_size { value: 4 } batch_timeout_micros { value: 300000 }"
    with running(serving(base_path, tmp_path, batching)) as client:
        start = time.monotonic()
        client.predict({"x": ROW})
        assert time.monotonic() - start >= 0.3


def test_a_batch_timeout_longer_than_any_clock_waits_until_the_batch_is_full(base_path: Path, tmp_path: Path) -> None:
    batching = f"max_batch_size {{ value: 2 }} batch_timeout_micros {{ value: {2**63 - 1} }}"
    with running(serving(base_path, tmp_path, batching)) as client:
        calls = []
        for waiting in (1, 0):
            calls.append(client.begin({"x": ROW}, "rows"))
            wait_until(lambda waiting=waiting: client.metric(WAITING, model_name="zoo") == waiting, "it waits, or runs")
        assert [call.result().outputs["rows"].int_val[0] for call in calls] == [2, 2]


def test_a_batch_is_padded_to_an_allowed_size_and_the_padding_is_not_returned(base_path: Path, tmp_path: Path) -> None:
    batching = "max_batch_size { value: 8 } allowed_batch_sizes: 2 allowed_batch_sizes: 8"
    with running(serving(base_path, tmp_path, batching)) as client:
        assert client.predict({"x": np.ones((3, 2), np.float32)}, "rows")["rows"].tolist() == [8, 8, 8]


def test_a_large_request_is_split_and_put_together_again(base_path: Path, tmp_path: Path) -> None:
    splitting = "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 4 }"
    batching = "max_batch_size { value: 10 } " + splitting
    with running(serving(base_path, tmp_path, batching)) as client:
        x = np.arange(20, dtype=np.float32).reshape(10, 2)
        np.testing.assert_array_equal(client.predict({"x": x})["y"], 2 * x + 1)
        assert client.predict({"x": x}, "rows")["rows"].tolist() == [4] * 8 + [2] * 2


def test_a_request_that_may_not_be_split_stays_whole_on_any_number_of_cores(base_path: Path, tmp_path: Path) -> None:
    argv = [*serving(base_path, tmp_path, "max_batch_size { value: 8 }"), "--narrow_runs=2"]
    with running(argv) as client:
        assert client.predict({"values": np.int32([7] * 8)}, "distinct")["values"].tolist() == [7]
        assert client.predict({"x": np.ones((8, 2), np.float32)}, "rows")["rows"].tolist() == [8] * 8
        assert client.refused({"x": np.ones((9, 2), np.float32)})[0] == "INVALID_ARGUMENT"


def test_one_caller_that_the_model_refuses_does_not_fail_the_others(server: Client) -> None:
    busy = held(server, 0.4)
    good = [server.begin({"x": np.float32([[4, 9]])}, "picky") for _ in range(3)]
    bad = server.begin({"x": np.float32([[-1, 1]])}, "picky")
    busy.result()
    assert [call.result().outputs["y"].tensor_content for call in good] == [np.float32([2, 3]).tobytes()] * 3
    assert failure(bad.result)[0] == "INVALID_ARGUMENT"


def test_one_caller_at_whose_values_the_model_fails_does_not_fail_the_others(server: Client) -> None:
    busy = held(server, 0.4)
    good = [server.begin({"packed": [gzip.compress(b"tulip")]}, "unpack") for _ in range(3)]
    bad = server.begin({"packed": [b"no gzip"]}, "unpack")
    busy.result()
    assert [call.result().outputs["text"].string_val[:] for call in good] == [[b"tulip"]] * 3
    assert failure(bad.result) == ("INTERNAL", "the model failed; the server's log says why")


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


def test_without_batching_every_request_runs_alone(base_path: Path) -> None:
    with running(["--model_name=zoo", f"--model_base_path={base_path}"]) as client:
        with ThreadPoolExecutor(8) as pool:
            sizes = list(
                pool.map(lambda n: client.predict({"x": np.ones((n, 2), np.float32)}, "rows")["rows"][0], range(1, 9))
            )
        assert sizes == list(range(1, 9))


def test_without_batching_requests_run_side_by_side_and_those_beyond_wait(base_path: Path, tmp_path: Path) -> None:
    with running([*unbatched(base_path, tmp_path), "--narrow_runs=2"]) as client:
        long = held(client, 1.5)
        short = held(client, 0.5)
        waiting = client.begin({"x": np.ones((3, 2), np.float32)})
        wait_until(lambda: client.metric(WAITING, model_name="zoo") == 3, "the third request's three rows wait")
        assert waiting.result()
        short.result()  # its answer may be a moment behind that of the one that followed it
        assert not long.done()
        long.result()


def test_without_batching_the_limit_is_in_rows_and_10000_may_wait(base_path: Path, tmp_path: Path) -> None:
    with running(unbatched(base_path, tmp_path)) as client:
        busy = held(client, 0.8)
        rows = [4000, 5999]
        waiting = [client.begin({"seconds": np.zeros(n, np.float32)}, "busy") for n in rows]
        wait_until(lambda: client.metric(WAITING, model_name="zoo") == 9999, "both are waiting")
        refused = client.refused({"seconds": np.zeros(2, np.float32)}, "busy")
        assert refused == ("UNAVAILABLE", "the queue of model 'zoo' is full: 9999 of 10000 rows are waiting")
        assert [call.result().outputs["seconds"].tensor_shape.dim[0].size for call in waiting] == rows
        busy.result()
        runs, asked = (client.metric(name, model_name="zoo") for name in (BATCHES, ASKED))
        assert (runs, asked) == (3, 10000)


def test_without_batching_a_request_may_have_any_number_of_rows(base_path: Path, tmp_path: Path) -> None:
    with running(unbatched(base_path, tmp_path)) as client:
        assert client.predict({"x": np.ones((20000, 2), np.float32)}, "rows")["rows"][0] == 20000


def test_without_batching_the_order_of_arrival_holds_within_a_signature(base_path: Path, tmp_path: Path) -> None:
    with running(unbatched(base_path, tmp_path)) as client:
        busy = held(client, 0.4)
        order: list[int] = []
        for rows, waiting in ((3, 3), (1, 4), (2, 6)):
            call = client.begin({"x": np.ones((rows, 2), np.float32)})
            call.add_done_callback(lambda _, rows=rows: order.append(rows))
            wait_until(lambda waiting=waiting: client.metric(WAITING, model_name="zoo") == waiting, "it waits")
        busy.result()
        wait_until(lambda: len(order) == 3, "all are answered")
        assert order == [3, 1, 2]


def test_two_runners_run_at_the_same_time(base_path: Path, tmp_path: Path) -> None:
    with running(serving(base_path, tmp_path, "max_batch_size { value: 1 } num_batch_threads { value: 2 }")) as client:
        first = held(client, 1.5)
        second = held(client, 0)
        assert second.result()
        assert not first.done()
        first.result()


@pytest.fixture
def two_widths(base_path: Path, tmp_path: Path) -> Iterator[Client]:
    """A server that runs a request by itself when it is alone, and two batches side by side when more wait."""
    argv = [*serving(base_path, tmp_path, "max_batch_size { value: 8 }"), "--narrow_runs=2"]
    options = flags.parse(argv)
    wide, narrow = (TensorFlowEngine(intra_op=n, inter_op=options.inter_op, precision="float32") for n in (2, 1))
    with running(argv, engine=TwoWidths(wide, narrow)) as client:
        yield client


def test_a_lone_request_has_the_cores_to_itself(two_widths: Client) -> None:
    first = held(two_widths, 0.5)
    two_widths.predict({"x": ROW})
    assert first.done()


def test_requests_that_wait_are_shared_out_among_the_cores(two_widths: Client) -> None:
    busy = held(two_widths, 0.5)
    with ThreadPoolExecutor(4) as pool:
        sizes = [int(rows) for rows in pool.map(lambda _: two_widths.predict({"x": ROW}, "rows")["rows"][0], range(4))]
    busy.result()
    assert sizes == [2, 2, 2, 2]


@pytest.mark.parametrize(("allowed", "requests"), [((1, 8), 16), ((1, 4, 8), 4)], ids=["whole batch", "half"])
def test_allowed_sizes_do_not_multiply_the_work_of_narrow_runs(
    base_path: Path, tmp_path: Path, allowed: tuple[int, ...], requests: int
) -> None:
    sizes = " ".join(f"allowed_batch_sizes: {size}" for size in allowed)
    argv = [*serving(base_path, tmp_path, f"max_batch_size {{ value: 8 }} {sizes}"), "--narrow_runs=2"]
    with running(argv) as client:
        busy = held(client, 0.6)
        waiting = [client.begin({"x": ROW}) for _ in range(requests)]
        wait_until(lambda: client.metric(WAITING, model_name="zoo") == requests, "all are waiting")
        for call in [busy, *waiting]:
            call.result()
        assert client.metric(COMPUTED, model_name="zoo") == client.metric(ASKED, model_name="zoo") == requests + 1


def test_narrow_runs_run_at_the_same_time(two_widths: Client) -> None:
    busy = held(two_widths, 0.5)
    long, short = (two_widths.begin({"seconds": np.float32([seconds])}, "busy") for seconds in (1.5, 0))
    busy.result()
    short.result()
    assert not long.done()
    long.result()


def test_many_callers_of_both_widths_each_get_their_own_rows(two_widths: Client) -> None:
    def one(number: int) -> bool:
        x = np.full((1 + number % 5, 2), number, np.float32)
        return np.array_equal(two_widths.predict({"x": x})["y"], 2 * x + 1)

    for callers in (1, 2, 12):
        with ThreadPoolExecutor(callers) as pool:
            assert all(pool.map(one, range(60)))


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
