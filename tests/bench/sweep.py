"""Which batching parameters, and how many threads? The same load on each choice, in turns."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench import pictures, systems
from tests.bench.load import closed_loop

# (runs at the same time, threads inside each, largest batch, microseconds that an incomplete batch waits). With 0
# threads the server chooses: one run on all cores, or under load one on each, which share the batch's rows.
CHOICES = (
    (1, 0, 8, 0),
    (1, 0, 16, 0),
    (1, 2, 8, 0),
    (1, 2, 4, 0),
    (1, 2, 16, 0),
    (1, 2, 8, 5000),
    (2, 1, 8, 0),
    (2, 1, 4, 0),
    (2, 2, 8, 0),
)
CALLERS = (1, 8, 32)


def sweep(precision: str, models: Path, log_dir: Path, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Rates and durations by choice; a server is started anew for each of them in each round."""
    cells: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for _ in range(rounds):
        for choice in CHOICES:
            for callers, summary in _measure(precision, models, log_dir, choice, seconds).items():
                cells.setdefault(_name(choice), {}).setdefault(callers, []).append(summary)
    return {choice: {callers: _middle(rows) for callers, rows in loads.items()} for choice, loads in cells.items()}


def _measure(
    precision: str, models: Path, log_dir: Path, choice: tuple[int, int, int, int], seconds: float
) -> dict[str, dict[str, Any]]:
    runs, threads, batch, wait = choice
    file = log_dir / "batching.config"
    values = {
        "max_batch_size": 32,
        "max_execution_batch_size": batch,
        "enable_large_batch_splitting": "true",
        "num_batch_threads": runs,
        "batch_timeout_micros": wait,
        "max_enqueued_batches": 128 // batch,
    }
    file.write_text("".join(f"{name} {{ value: {value} }}\n" for name, value in values.items()))
    system = systems.whence(precision, models)
    server = [part for part in system.commands["server"] if not part.startswith("--batching_parameters_file")]
    flags = [f"--batching_parameters_file={file}", f"--tensorflow_intra_op_parallelism={threads}"]
    system.commands = {**system.commands, "server": [*server, *flags]}
    bodies = [system.body(picture) for picture in pictures.real()]
    system.start(log_dir)
    try:
        return {
            f"{callers} callers": closed_loop(system.url, bodies, callers=callers, seconds=seconds).summary()
            for callers in CALLERS
        }
    finally:
        system.stop()


def _name(choice: tuple[int, int, int, int]) -> str:
    runs, threads, batch, wait = choice
    how = f"{runs} x {threads} threads" if threads else "wide or narrow"
    return f"{how}, batch {batch}, wait {wait / 1000:g} ms"


def _middle(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {name: median(row[name] or 0 for row in rows) for name in ("rps", "p50_ms", "p99_ms")}
