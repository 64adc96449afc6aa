"""Do memory and open files grow with time? The same load for minutes, and what both processes hold once a minute."""

import time
from pathlib import Path
from typing import Any

from tests.bench import pictures, systems
from tests.bench.load import closed_loop, open_loop
from tests.bench.processes import cost

CALLERS = 16
MINUTE_S = 58  # and the rest for what came in last


def soak(precision: str, models: Path, log_dir: Path, *, minutes: float, rate: float) -> dict[str, Any]:
    """A row for each minute: pictures per second, p99, answers, memory in MiB and open files of each process.

    `rate` requests a second, or with 0 as many as CALLERS callers bring about.
    """
    system = systems.whence(precision, models)
    bodies = [pictures.raw(picture) for picture in [*pictures.real(), pictures.upload_300_kb(), pictures.large()]]
    system.start(log_dir)
    rows: list[dict[str, Any]] = []
    try:
        end = time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            if rate:
                outcome = open_loop(system.url, bodies, rate=rate, seconds=MINUTE_S)
            else:
                outcome = closed_loop(system.url, bodies, callers=CALLERS, seconds=MINUTE_S)
            held = {name: cost(process.pid) for name, process in system.running.items()}
            rows.append(
                outcome.summary()
                | {"rss_mib": {name: each.rss_mib for name, each in held.items()}}
                | {"open_files": {name: each.open_files for name, each in held.items()}}
            )
            print(rows[-1], flush=True)
    finally:
        system.stop()
    return {"callers": CALLERS, "rate": rate, "minutes": rows}
