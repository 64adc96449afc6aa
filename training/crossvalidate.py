"""Heads on the frozen network, measured by folds: each picture is asked of a head that knows nothing of its group.

A validation part holds a few dozen artists or books, so its intervals are wide, and settings that were chosen on it
look better than they are. Here every artist, then every book, is held out once: several times the pictures, for the
price of solving the head anew in each fold. Fine-tuning is left out, as it would cost a run for each. The directions of
the covariances are those of the training part in all folds; no label had a say in them.

RUN/crossvalidation.json    all numbers
RUN/crossvalidation.md      the same for people
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.calibrate import cross_calibrated
from training.config import TrainConfig, to_values
from training.data import FreshViews
from training.evaluate import compare, measure
from training.features import extract, set_directions
from training.fit import environment, examples_of, solve_head
from training.layers import LOGITS
from training.metrics import Floats, evened_out
from training.model import ask_head, build_model
from training.prepare import load_prepared
from training.records import ARTIST, SOURCE, TRAIN, Record
from training.report import folds_tables
from training.splits import folds

CROSSVALIDATION: Final = "crossvalidation.json"


def crossvalidate(config: TrainConfig, *, against: Mapping[str, TrainConfig], count: int = 5) -> dict[str, Any]:
    """Measure the head of `config` in `count` folds of artists, then of books; write its report and return its numbers.

    `against` are other configs on the same prepared pictures, by name, to be compared with picture by picture. Raises
    ValueError where the folds are fewer than two or more than there are groups, or a config is of other pictures.
    """
    if count < 2:
        raise ValueError(f"{count} folds: expected two or more")
    records, pixels, split = load_prepared(config.prepared)
    for name, other in against.items():
        if (other.prepared, other.labels) != (config.prepared, config.labels):
            raise ValueError(f"{name} is of other pictures, or tells other cultures apart")
    parts = {part: folds(records, config.labels, part=part, count=count) for part in (ARTIST, SOURCE)}
    parts = {part: parted for part, parted in parts.items() if parted}
    if not parts:
        raise ValueError(f"{config.prepared} has fewer than {count} artists, and fewer books: expected more")
    own = _ask(config, records, pixels, parts)
    rivals = {name: _ask(other, records, pixels, parts) for name, other in against.items()}
    report: dict[str, Any] = {
        "config": to_values(config),
        "split": split["digest"],
        "folds": count,
        "environment": environment(),
        "parts": {},
        "comparisons": {name: {} for name in rivals},
    }
    for part, parted in parts.items():
        chosen = _held(parted, part)
        truth = np.array([config.labels.index(record.culture) for record in chosen])
        report["parts"][part] = _kinds(measure(own[part], truth, chosen, config))
        for name, rival in rivals.items():
            report["comparisons"][name][part] = _kinds(compare(own[part], rival[part], truth, chosen))
    config.run.mkdir(parents=True, exist_ok=True)
    (config.run / CROSSVALIDATION).write_text(json.dumps(report, indent=1) + "\n")
    lines = [f"# The head on the frozen network, in {count} folds", *folds_tables(report)]
    (config.run / CROSSVALIDATION).with_suffix(".md").write_text("\n".join(lines) + "\n")
    return report


def _ask(
    config: TrainConfig, records: Sequence[Record], pixels: NDArray[np.uint8], parts: Mapping[str, list[list[Record]]]
) -> dict[str, Floats]:
    """Per part the probabilities of what `_held` names; each fold at temperatures that were found on the others."""
    features = extract(config, records, pixels)
    model = build_model(config.shape, weights=config.base_weights, precision=config.precision)
    set_directions(model, features.directions)
    views = FreshViews(config, records, pixels)
    found = {}
    for part, parted in parts.items():
        logits, numbers = [], []
        for number, fold in enumerate(tqdm(parted, f"folds by {part}", unit="fold")):
            train, held = (np.flatnonzero([record.part == name for record in fold]) for name in (TRAIN, part))
            examples = examples_of(config, fold, views, features, train, held)
            solve_head(config, model, features.features, examples)
            logits.append(ask_head(model, features.features[0][held])[LOGITS])
            numbers += [number] * len(held)
        chosen = _held(parted, part)
        truth = np.array([config.labels.index(record.culture) for record in chosen])
        weights = evened_out([record.group for record in chosen], config.group_weight)
        found[part] = cross_calibrated(np.concatenate(logits), truth, weights, numbers)
    return found


def _held(parted: Sequence[Sequence[Record]], part: str) -> list[Record]:
    """The pictures that are held out in one fold or another, fold by fold."""
    return [record for fold in parted for record in fold if record.part == part]


def _kinds(rows: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without "all": every picture that is asked about is of the one part."""
    return {name: row for name, row in rows.items() if name != "all"}
