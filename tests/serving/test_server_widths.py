"""Runs side by side: one on all cores for a request alone, narrow ones for those that wait."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from serving.server import flags
from serving.server.tensorflow_engine import TensorFlowEngine
from serving.server.widths import TwoWidths
from tests.serving.queueing import ASKED, COMPUTED, ROW, WAITING, batched, held, rows_of_runs
from tests.serving.running import Client, running, wait_until

pytestmark = pytest.mark.training


def test_two_runners_run_at_the_same_time(base_path: Path, tmp_path: Path) -> None:
    with running(batched(base_path, tmp_path, "max_batch_size { value: 1 } num_batch_threads { value: 2 }")) as client:
        first = held(client, 1.5)
        second = held(client, 0)
        assert second.result()
        assert not first.done()
        first.result()


@pytest.fixture
def two_widths(base_path: Path, tmp_path: Path) -> Iterator[Client]:
    """A server that runs a request by itself when it is alone, and two batches side by side when more wait."""
    argv = [*batched(base_path, tmp_path, "max_batch_size { value: 8 }"), "--narrow_runs=2"]
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
    sizes = rows_of_runs(two_widths, 4)
    busy.result()
    assert sizes == [2, 2, 2, 2]


@pytest.mark.parametrize(("allowed", "requests"), [((1, 8), 16), ((1, 4, 8), 4)], ids=["whole batch", "half"])
def test_allowed_sizes_do_not_multiply_the_work_of_narrow_runs(
    base_path: Path, tmp_path: Path, allowed: tuple[int, ...], requests: int
) -> None:
    sizes = " ".join(f"allowed_batch_sizes: {size}" for size in allowed)
    argv = [*batched(base_path, tmp_path, f"max_batch_size {{ value: 8 }} {sizes}"), "--narrow_runs=2"]
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
