"""The run: head on cached features, then the last block, then what the validation pictures say about the answers.

RUN/run.json            config, split, environment, seconds: written when the run is done
RUN/checkpoint/         model.safetensors and release.json, as `release` will publish them
RUN/validation.npz      logits, truth and record number of every validation picture
RUN/seed_<n>/           epochs.csv, a backup from which a killed run goes on, logs for TensorBoard
"""

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training.calibrate import calibrate
from training.checkpoint import Release, load_release, save_release
from training.config import TrainConfig, to_values
from training.data import Examples
from training.features import CUT, Features, extract, set_directions
from training.finetune import finetune
from training.head import picture_weights, project, solve, standardise
from training.metrics import summary
from training.model import build_model, load_weights, weights_of
from training.prepare import load_prepared
from training.records import ARTIST, OTHER, SOURCE, TRAIN, VALIDATION, Record

CHECKPOINT: Final = "checkpoint"
ANSWERS: Final = "validation.npz"
RUN: Final = "run.json"
EMBEDDED_PICTURES: Final = 3000  # looked at for the embedding's directions


@dataclass(frozen=True)
class Answers:
    """Logits [N, C] for records `rows`, and their true labels."""

    rows: NDArray[np.int64]
    logits: NDArray[np.float32]
    truth: NDArray[np.int64]


def fit(config: TrainConfig) -> dict[str, Any]:
    """Train as `config` says; write the run's folder and return what stands in run.json."""
    keras.utils.set_random_seed(config.seeds[0])
    started = time.time()
    records, pixels, split = load_prepared(config.prepared)
    features = extract(config, records, pixels)
    truth = np.array([config.labels.index(r.culture) if r.part != OTHER else -1 for r in records])
    parts = (TRAIN,) if config.train_on == TRAIN else (TRAIN, *VALIDATION)
    train = np.flatnonzero([record.part in parts for record in records])
    validation = np.flatnonzero([record.part in VALIDATION for record in records])

    model = build_model(config.shape, weights=config.base_weights, precision=config.precision)
    set_directions(model, features.directions)
    weights = picture_weights(truth[train], [records[i].group for i in train], group_weight=config.group_weight)
    _solve_head(config, model, features, train, truth[train], weights)
    stages = {"head": _measure(config, head_logits(model, features.features[0][validation]), truth[validation])}
    lower = sum(config.shape.features_of(block) for block in config.shape.blocks if block < CUT)
    examples = Examples(features, lower, train, validation, truth, weights, len(config.labels))
    if config.epochs:
        seeds = [finetune(config, model, examples, seed=seed) for seed in config.seeds]
        stages |= {f"seed {s}": _measure(config, r.logits, truth[validation]) for s, r in zip(config.seeds, seeds, strict=True)}
        load_weights(model, seeds[0].weights)
        logits = seeds[0].logits
    else:
        logits = head_logits(model, features.features[0][validation])
    answers = Answers(validation, logits, truth[validation])
    report = {
        "config": to_values(config),
        "split": split["digest"],
        "parts": split["parts"],
        "leaks": split["leaks"],
        "trained_on": len(train),
        "stages": stages,
        "seconds": round(time.time() - started),
        "environment": environment(),
    }
    _write(config, model, answers, records, report)
    return report


def head_logits(model: keras.Model, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the head makes of cached features."""
    weights = weights_of(model)
    standard = (np.asarray(features) - weights["head/shift"]) * weights["head/scale"]
    result: NDArray[np.float32] = standard @ weights["head/kernel"] + weights["head/bias"]
    return result


def environment() -> dict[str, str]:
    """Versions that an honest rerun needs."""
    packages = ("keras", "numpy", "pillow", "scikit-learn", "scipy", "tensorflow", "jax")
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:
            continue
    return {"python": platform.python_version(), "backend": keras.backend.backend(), **found}


def _solve_head(
    config: TrainConfig,
    model: keras.Model,
    features: Features,
    train: NDArray[np.int64],
    truth: NDArray[np.int64],
    weights: NDArray[np.floating[Any]],
) -> None:
    """The head's optimum on all views of the training pictures, and the embedding's directions."""
    views = np.concatenate([view[train] for view in features.features])
    shift, scale = standardise(views)
    views -= shift
    views *= scale
    kernel, bias = solve(
        views,
        np.tile(truth, config.views),
        np.tile(weights, config.views),
        classes=len(config.labels),
        weight_decay=config.weight_decay,
        smoothing=config.label_smoothing,
    )
    embedded = views[: len(train), config.shape.embedded()][:: max(1, len(train) // EMBEDDED_PICTURES)]
    head = {"shift": shift, "scale": scale, "kernel": kernel, "bias": bias,
            "projection": project(embedded, config.embedding_size)}  # fmt: skip
    load_weights(model, weights_of(model) | {f"head/{name}": value for name, value in head.items()})


def _measure(config: TrainConfig, logits: NDArray[np.float32], truth: NDArray[np.int64]) -> dict[str, Any]:
    from training.calibrate import probabilities, temperature_of

    temperature = temperature_of(logits, truth)
    return {"temperature": temperature, **summary(probabilities(logits, temperature), truth)}


def _write(
    config: TrainConfig, model: keras.Model, answers: Answers, records: Sequence[Record], report: dict[str, Any]
) -> None:
    config.run.mkdir(parents=True, exist_ok=True)
    if config.calibrated_by:
        measured = load_release(config.calibrated_by / CHECKPOINT)
        calibration, reached = measured.calibration, measured.facts["abstention"]
    else:
        calibration, reached = calibrate(
            answers.logits,
            answers.truth,
            honest=[records[i].part in (ARTIST, SOURCE) for i in answers.rows],
            target_accuracy=config.target_accuracy,
            known_share=config.known_share,
        )
    weights = {name: np.asarray(value, np.float16) for name, value in weights_of(model).items()}
    facts = {"abstention": {"target": config.target_accuracy, **reached}}
    release = Release(0, config.labels, config.shape, calibration, weights, facts)
    save_release(replace(release), config.run / CHECKPOINT)
    np.savez(config.run / ANSWERS, rows=answers.rows, logits=answers.logits, truth=answers.truth)
    (config.run / RUN).write_text(json.dumps(report, indent=1) + "\n")


def load_answers(run: Path) -> Answers:
    """The validation answers of a run. Raises ValueError when there is no finished run."""
    if not (run / RUN).exists():
        raise ValueError(f"{run} is no finished run: run `python -m training fit` first")
    with np.load(run / ANSWERS) as saved:
        return Answers(saved["rows"], saved["logits"], saved["truth"])
