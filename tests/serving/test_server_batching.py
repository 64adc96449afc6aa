"""Dynamic batching: who shares a run, how its rows are padded and split, and that each gets their own."""

import gzip
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.serving.queueing import ROW, WAITING, batched, held, rows_of_runs
from tests.serving.running import Client, failure, running, wait_until

pytestmark = pytest.mark.training


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
    sizes = rows_of_runs(server, 4)
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
    with running(batched(base_path, tmp_path, batching)) as client:
        start = time.monotonic()
        client.predict({"x": ROW})
        assert time.monotonic() - start >= 0.3


def test_a_batch_timeout_longer_than_any_clock_waits_until_the_batch_is_full(base_path: Path, tmp_path: Path) -> None:
    batching = f"max_batch_size {{ value: 2 }} batch_timeout_micros {{ value: {2**63 - 1} }}"
    with running(batched(base_path, tmp_path, batching)) as client:
        calls = []
        for waiting in (1, 0):
            calls.append(client.begin({"x": ROW}, "rows"))
            wait_until(lambda waiting=waiting: client.metric(WAITING, model_name="zoo") == waiting, "it waits, or runs")
        assert [tf.make_ndarray(call.result().outputs["rows"]).tolist() for call in calls] == [[2], [2]]


def test_a_batch_is_padded_to_an_allowed_size_and_the_padding_is_not_returned(base_path: Path, tmp_path: Path) -> None:
    batching = "max_batch_size { value: 8 } allowed_batch_sizes: 2 allowed_batch_sizes: 8"
    with running(batched(base_path, tmp_path, batching)) as client:
        assert client.predict({"x": np.ones((3, 2), np.float32)}, "rows")["rows"].tolist() == [8, 8, 8]


def test_a_large_request_is_split_and_put_together_again(base_path: Path, tmp_path: Path) -> None:
    splitting = "enable_large_batch_splitting { value: true } max_execution_batch_size { value: 4 }"
    batching = "max_batch_size { value: 10 } " + splitting
    with running(batched(base_path, tmp_path, batching)) as client:
        x = np.arange(20, dtype=np.float32).reshape(10, 2)
        np.testing.assert_array_equal(client.predict({"x": x})["y"], 2 * x + 1)
        assert client.predict({"x": x}, "rows")["rows"].tolist() == [4] * 8 + [2] * 2


def test_a_request_that_may_not_be_split_stays_whole_on_any_number_of_cores(base_path: Path, tmp_path: Path) -> None:
    argv = [*batched(base_path, tmp_path, "max_batch_size { value: 8 }"), "--narrow_runs=2"]
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
