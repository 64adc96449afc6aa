"""A new version of the model appears while the old one is under load: what do callers notice?"""

import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from tests.bench import pictures, systems
from tests.bench.load import Outcome, closed_loop

CALLERS, SECONDS = 8, 20.0


def swap(precision: str, models: Path, log_dir: Path) -> dict[str, Any]:
    """The same load twice, the second time with a version swap in its first seconds."""
    source = systems.newest(models, precision)
    with tempfile.TemporaryDirectory(dir=models) as scratch:
        copy = Path(scratch, systems.folder(precision))
        shutil.copytree(source, copy / source.name)
        system = systems.whence(precision, Path(scratch))
        system.start(log_dir)
        try:
            quiet = _load(system)
            appear = threading.Timer(4.0, lambda: _publish(source, copy))
            appear.start()
            swapped = _load(system)
            appear.join()
        finally:
            system.stop()
    summaries = {"quiet": quiet.summary(), "with a swap": swapped.summary()}
    ratio = (summaries["with a swap"]["p99_ms"] or 0) / (summaries["quiet"]["p99_ms"] or 1)
    return summaries | {"p99 with a swap / quiet": round(ratio, 2), "slowest_s": round(max(swapped.good_s), 2)}


def _load(system: systems.System) -> Outcome:
    bodies = [system.body(picture) for picture in pictures.real()]
    return closed_loop(system.url, bodies, callers=CALLERS, seconds=SECONDS)


def _publish(source: Path, folder: Path) -> None:
    """By one rename, as `training export` does."""
    scratch = folder.parent / f".next-{time.monotonic_ns()}"
    shutil.copytree(source, scratch)
    scratch.rename(folder / str(int(source.name) + 1))
