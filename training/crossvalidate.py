"""Heads on the frozen network, measured by folds: each picture is asked of a head that knows nothing of its group.

A validation part holds a few dozen artists or books, so its intervals are wide, and settings that were chosen on it
look better than they are. Here every picture is held out once alone, once with its artist and once with its book:
several times the pictures, for the price of solving the head anew in each fold. Fine-tuning is left out, as it would
cost a run for each. The directions of the covariances are those of the training part in all folds; no label had a say
in them.

RUN/crossvalidation.json    all numbers
RUN/crossvalidation.md      the same for people
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.config import TrainConfig, to_values
from training.data import FreshViews
from training.evaluate import calibrated, compare, measure
from training.features import extract, set_directions
from training.frozen import examples_of, solve_head
from training.layers import LOGITS
from training.model import ask_head, build_model
from training.prepare import load_prepared
from training.records import TRAIN, VALIDATION, Record, classes_of
from training.report import folds_tables
from training.runs import Answers, environment
from training.splits import folds

CROSSVALIDATION: Final = "crossvalidation.json"


def crossvalidate(config: TrainConfig, *, against: Mapping[str, TrainConfig], count: int = 5) -> dict[str, Any]:
    """Measure the head of `config` in `count` folds of each kind, write its report and return its numbers.

    `against` are other configs on the same prepared pictures, by name, to be compared with picture by picture. Raises
    ValueError where the folds are fewer than two or more than there are groups, or a config is of other pictures.
    """
    if count < 2:
        raise ValueError(f"{count} folds: expected two or more")
    records, pixels, split = load_prepared(config.prepared)
    for name, other in against.items():
        if (other.prepared, other.labels) != (config.prepared, config.labels):
            raise ValueError(f"{name} is of other pictures, or tells other cultures apart")
    every = [fold for part in VALIDATION for fold in folds(records, config.labels, part=part, count=count)]
    if not every:
        raise ValueError(f"{config.prepared} has fewer than {count} pictures to hold out: expected more")
    chosen = [record for fold in every for record in fold if record.part in VALIDATION]
    own = _ask(config, records, pixels, every, chosen)
    found, truth = calibrated(own, chosen, config.group_weight), own.truth
    report = {
        "config": to_values(config),
        "split": split["digest"],
        "folds": count,
        "environment": environment(),
        "model": measure(found, truth, chosen, config),
        "comparisons": {
            name: compare(found, _ask(other, records, pixels, every, chosen), truth, chosen, config.group_weight)
            for name, other in against.items()
        },
    }
    config.run.mkdir(parents=True, exist_ok=True)
    (config.run / CROSSVALIDATION).write_text(json.dumps(report, indent=1) + "\n")
    lines = [f"# The head on the frozen network, in {count} folds", "", *folds_tables(report)]
    (config.run / CROSSVALIDATION).with_suffix(".md").write_text("\n".join(lines) + "\n")
    return report


def _ask(
    config: TrainConfig,
    records: Sequence[Record],
    pixels: NDArray[np.uint8],
    every: Sequence[Sequence[Record]],
    chosen: Sequence[Record],
) -> Answers:
    """Logits of `chosen`, what is held out in one fold after another."""
    features = extract(config, records, pixels)
    model = build_model(config.shape, weights=config.base_weights, precision=config.precision)
    set_directions(model, features.directions)
    views = FreshViews(config, records, pixels)
    rows, logits = [], []
    for fold in tqdm(every, "heads", unit="fold"):
        train = np.flatnonzero([record.part == TRAIN for record in fold])
        held = np.flatnonzero([record.part in VALIDATION for record in fold])
        solve_head(config, model, features.features, examples_of(config, fold, views, features, train, held))
        rows.append(held)
        logits.append(ask_head(model, features.features[0][held])[LOGITS])
    truth = np.array(classes_of(chosen, config.labels))
    return Answers(np.concatenate(rows), np.concatenate(logits), np.zeros(len(truth), np.float32), truth)
