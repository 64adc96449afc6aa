"""What tests of batching share: command lines, metrics, and a runner that is kept busy."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc
import numpy as np

from tests.serving.running import Client, one_model, wait_until

BATCHES: Final = ":tensorflow:serving:batching_session:wrapped_run_count"
QUEUED: Final = ":tensorflow:serving:batching_session:queuing_latency_count"
ASKED: Final = ":tensorflow:serving:batching_session:input_batch_size_sum"
COMPUTED: Final = ":tensorflow:serving:batching_session:processed_batch_size_sum"
WAITING: Final = "whence_server_queue_rows"
ROW: Final = np.ones((1, 2), np.float32)


def unbatched(base_path: Path, folder: Path) -> list[str]:
    """A command line for one model, with metrics; its configuration is written into `folder`."""
    (folder / "monitoring.config").write_text("prometheus_config { enable: true }")
    return one_model(base_path, f"--monitoring_config_file={folder}/monitoring.config")


def batched(base_path: Path, folder: Path, batching: str) -> list[str]:
    """The same with these batching parameters."""
    (folder / "batching.config").write_text(batching)
    return [*unbatched(base_path, folder), f"--batching_parameters_file={folder}/batching.config"]


def rows_of_runs(client: Client, count: int) -> list[int]:
    """`count` requests of one row at the same time: how many rows the run had that each was in."""
    with ThreadPoolExecutor(count) as pool:
        return [int(rows) for rows in pool.map(lambda _: client.predict({"x": ROW}, "rows")["rows"][0], range(count))]


def held(client: Client, seconds: float) -> grpc.Future:
    """Keeps the only runner busy, so that what comes after it has to wait."""
    before = client.metric(QUEUED, model_name="zoo")
    call = client.begin({"seconds": np.float32([seconds])}, "busy")
    wait_until(lambda: client.metric(QUEUED, model_name="zoo") > before, "the runner is busy")
    return call
