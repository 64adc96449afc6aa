"""Does memory grow with time? The same load for minutes, and the memory of both processes once a minute."""

import time
from pathlib import Path
from typing import Any

from tests.bench import pictures, systems
from tests.bench.load import closed_loop
from tests.bench.processes import cost

CALLERS = 16


def soak(precision: str, models: Path, log_dir: Path, minutes: float) -> dict[str, Any]:
    """A row for each minute: pictures per second, p99, answers, memory in MiB and threads of each process."""
    system = systems.whence(precision, models)
    bodies = [pictures.raw(picture) for picture in [*pictures.real(), pictures.upload_300_kb(), pictures.large()]]
    system.start(log_dir)
    rows: list[dict[str, Any]] = []
    try:
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            summary = closed_loop(system.url, bodies, callers=CALLERS, seconds=58).summary()
            memory = {name: cost(process.pid).rss_mib for name, process in system.running.items()}
            rows.append(summary | {"rss_mib": memory})
            print(rows[-1], flush=True)
    finally:
        system.stop()
    return {"callers": CALLERS, "minutes": rows}
