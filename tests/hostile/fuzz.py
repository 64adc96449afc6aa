"""Coverage-guided fuzzing of `serving.images` with Atheris, which nothing here installs: it has to be there.

    pip install atheris numpy pillow
    python -m tests.hostile.fuzz FOLDER [-max_total_time=900 and other options of libFuzzer]

FOLDER keeps what reached new code, and is where the next run goes on. A finding ends the run: an exception that is no
ImageError, more than CPU_S of work, or more than MEMORY_MIB.
"""

import random
import sys
import time
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "serving.images"]):
    from PIL import AvifImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

    from serving import images

from tests.hostile.pictures import mutated, seeds
from tests.hostile.structure import restructured

CPU_S = 6.0  # instrumented code is about three times slower
MEMORY_MIB = 700
MAX_BYTES = 300_000
PLUGINS = (AvifImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
SEEDS = seeds()


def one(data: bytes) -> None:
    """Decode, in bounded time and memory."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    begin = time.thread_time()
    with suppress(images.ImageError):
        images.decode(data)
    took_s, peak_mib = time.thread_time() - begin, _peak_mib()
    if took_s > CPU_S or peak_mib > MEMORY_MIB:
        raise RuntimeError(f"{took_s:.1f} s, {peak_mib:.0f} MiB")


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """By structure, by bytes, or as libFuzzer does it."""
    dice = random.Random(seed)
    if len(data) < 12:
        data = dice.choice(SEEDS)
    match dice.randrange(4):
        case 0:
            changed = mutated(data, dice, SEEDS)
        case 1:
            changed = atheris.Mutate(data, max_size)
        case _:
            changed = restructured(data, dice, SEEDS)
    return changed[:max_size]


def _peak_mib() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    """Fuzz."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(SEEDS):
        (folder / f"seed-{number:02}").write_bytes(data)
    atheris.Setup([*sys.argv, f"-max_len={MAX_BYTES}"], one, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
