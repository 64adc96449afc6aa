"""Without batching: every request is a run of its own, and waits for a free one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.serving.queueing import ASKED, BATCHES, WAITING, held, unbatched
from tests.serving.running import one_model, running, wait_until

pytestmark = pytest.mark.training


def test_without_batching_every_request_runs_alone(base_path: Path) -> None:
    with running(one_model(base_path)) as client:
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
