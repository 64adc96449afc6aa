"""`python -m training release`: a run becomes the release, with everything that is made from a release's weights.

    model.safetensors, release.json    the checkpoint and what is known of it
    README.md, DATA.md                 model card and data card
    int8.json                          ranges for the int8 engine      (alone: `python -m training ranges`)
    index/<version>/                   the sample of nearest objects   (alone: `python -m training index`)
    reference.json                     the yardstick for drift         (alone: `python -m training reference`)

All of it is made in a folder beside the release, and only then takes the place of what was there. The last three need
TensorFlow, ranges OpenVINO too; where they are not installed, what is missing is said.
"""

import shutil
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from training import index, reference
from training.checkpoint import FACTS, WEIGHTS, Release
from training.prepare import RECORDS
from training.records import TRAIN, load_records
from training.release import config_of, release

INDEX: Final = "index"
SAMPLE: Final = Path(__file__).parents[1] / "tests" / "images" / "samples.csv"  # CC0 pictures of The Met, in git
SAMPLE_SOURCE: Final = "The Metropolitan Museum of Art"
SAMPLE_ABOUT: Final = "A sample: fourteen objects of The Met (CC0), those of tests/images"
RANGE_PICTURES: Final = 256  # training pictures that ranges are measured on


def publish(run: Path, out: Path, *, version: int | None = None, force: bool = False, sample: Path = SAMPLE) -> Release:
    """Make the release of `run` and put it into `out`, whole. Raises Regression unless `force`, and changes nothing."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".release-", dir=out.parent) as scratch:
        new = Path(scratch)
        print("checkpoint and cards", flush=True)
        published = release(run, new, before=out, version=version, force=force)
        for title, packages, make in _companions(run, new, sample):
            missing = [name for name in packages if not find_spec(name)]
            print(title if not missing else f"NOT MADE, for want of {', '.join(missing)}: {title}", flush=True)
            if not missing:
                make()
        _replace(new, out)
    return published


def _companions(run: Path, new: Path, sample: Path) -> list[tuple[str, tuple[str, ...], Callable[[], object]]]:
    """What is made from the weights in `new`: title, packages that it takes, and how."""
    config = config_of(run)

    def ranges() -> object:
        from training.int8 import write_ranges

        known = sum(record.part == TRAIN for record in load_records(config.prepared / RECORDS))
        return write_ranges(new, config.prepared, pictures=min(RANGE_PICTURES, known))

    return [
        ("int8.json: ranges of activations", ("tensorflow", "openvino"), ranges),
        (
            "index: the sample of nearest objects",
            ("tensorflow",),
            lambda: index.build(sample, new / INDEX, new, source=SAMPLE_SOURCE, about=SAMPLE_ABOUT),
        ),
        (
            "reference.json: the yardstick for drift",
            ("tensorflow",),
            lambda: reference.write(config.measured_by or run, new, pictures=reference.PICTURES, about=reference.ABOUT),
        ),
    ]


def _replace(new: Path, out: Path) -> None:
    """Move everything to `out`; what it has of an older release goes. release.json comes last: it names the weights."""
    names = sorted((path.name for path in new.iterdir()), key=lambda name: (name == FACTS, name != WEIGHTS, name))
    for stale in ("int8.json", reference.REFERENCE, INDEX):
        path = out / stale
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for name in names:
        (new / name).replace(out / name)
