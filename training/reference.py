"""`python -m training reference`: what the release answers on known pictures, as the yardstick for drift.

Cultures, decisions and confidence are those of the measured run on its validation pictures, which it has not seen; the
embeddings of the same pictures are the release's own, because those are what the gateway will compare.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from serving import contract
from serving.reference import Reference, RunningMean

if TYPE_CHECKING:
    from training.answers import Answers

WINDOW: Final = 200  # pictures in a running mean embedding
ONCE_IN: Final = 1000  # how rarely a running mean of known pictures passes the limit
DRAWS: Final = 100_000
REFERENCE: Final = "reference.json"
PICTURES: Final = 800  # validation pictures to ask about
ABOUT: Final = "validation pictures of the release's own data"


def make(
    answers: "Answers",
    embeddings: NDArray[np.float32],
    labels: tuple[str, ...],
    *,
    model_version: int,
    sha256: str,
    about: str,
) -> Reference:
    """The reference from the measured run's answers and the release's embeddings of the same pictures."""
    probabilities = answers[contract.PROBABILITIES]
    told = probabilities.argmax(1)
    decisions = [decision.decode() for decision in answers[contract.DECISION]]
    centroid = embeddings.mean(0)
    return Reference(
        model_version=model_version,
        release_sha256=sha256,
        about=about,
        pictures=len(told),
        cultures={label: round(float((told == i).mean()), 4) for i, label in enumerate(labels)},
        decisions={each: round(decisions.count(each) / len(decisions), 4) for each in contract.DECISIONS},
        confidence=round(float(probabilities.max(1).mean()), 4),
        centroid=tuple(round(float(value), 5) for value in centroid),
        distance=round(float(1 - (embeddings @ centroid).mean() / np.linalg.norm(centroid)), 4),
        window=WINDOW,
        centroid_limit=round(centroid_limit(embeddings, window=WINDOW), 4),
    )


def centroid_limit(embeddings: NDArray[np.float32], *, window: int, draws: int = DRAWS) -> float:
    """How far a running mean of pictures like these strays from their centroid, but for once in ONCE_IN times."""
    rng = np.random.default_rng(0)
    centroid = embeddings.mean(0).astype(np.float64)
    mean, distances = RunningMean(window, embeddings.shape[1]), []
    for row in rng.integers(0, len(embeddings), draws):
        mean.add(embeddings[row])
        if mean.full:
            distances.append(mean.distance(centroid))
    return float(np.quantile(distances, 1 - 1 / ONCE_IN))


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", release: Path) -> None:
    """Register `reference`."""
    parser = commands.add_parser(
        "reference",
        help="write the yardstick for drift beside a release",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--run", dest="folder", type=Path, required=True, help="the measured run that vouches for the release")
    add("--release", type=Path, default=release, help="folder with model.safetensors (default: %(default)s)")
    add("--pictures", type=int, default=PICTURES, help="validation pictures to ask about (default: %(default)s)")
    add("--about", default=ABOUT, help="which pictures these are, for people")
    parser.set_defaults(run=_run)


def write(run: Path, release: Path, *, pictures: int, about: str) -> Reference:
    """Write the yardstick beside a release that the measured `run` vouches for, from so many validation pictures."""
    from training.answers import ReleasedModel, validation_of  # imports TensorFlow, which takes seconds
    from training.records import VALIDATION
    from training.runs import CHECKPOINT

    records, pixels = validation_of(run)
    rows = np.flatnonzero([record.part in VALIDATION for record in records])
    rows = np.sort(np.random.default_rng(0).permutation(rows)[:pictures])
    chosen = np.asarray(pixels[rows])
    measured = ReleasedModel(run / CHECKPOINT, [contract.PROBABILITIES, contract.DECISION])
    released = ReleasedModel(release, [contract.EMBEDDING])
    reference = make(
        measured.ask(chosen),
        released.ask(chosen)[contract.EMBEDDING],
        measured.release.labels,
        model_version=released.release.version,
        sha256=released.sha256,
        about=about,
    )
    reference.save(release / REFERENCE)
    return reference


def _run(options: argparse.Namespace) -> None:
    reference = write(options.folder, options.release, pictures=options.pictures, about=options.about)
    print(f"{REFERENCE}: {reference.pictures} pictures, centroid limit {reference.centroid_limit}")
