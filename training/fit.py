"""The run: head on cached features, then upper blocks, then what the validation pictures say about the answers.

It leaves a folder: what stands in it is told in `training.runs`, and of RUN/seed_<n>/ in `training.finetune`.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from serving.contract import OOD_SCORE
from training.calibrate import ALL, calibrate, temperature_of
from training.checkpoint import Release, load_release, save_release
from training.config import PLACES, TrainConfig, to_values
from training.data import CachedViews, Examples, FreshViews
from training.features import Features, extract, set_directions, trained_on
from training.finetune import best_epoch, finetune
from training.frozen import examples_of, solve_head
from training.layers import LOGITS
from training.metrics import evened_out, log_softmax, summary
from training.model import ask_head, build_model, load_weights, weights_of
from training.outside import OUTSIDE, USUAL, keep_usual, learn_strangers, usual_distance
from training.prepare import load_prepared
from training.records import ARTIST, SHOWN, SOURCE, VALIDATION, Record
from training.runs import (
    ANSWERS,
    CHECKPOINT,
    GROUP_WEIGHT,
    HEAD,
    RUN,
    SEED,
    START,
    Answers,
    best_stage,
    environment,
    facts_of,
    load_answers,
    recipe_of,
    recipe_so_far,
    settings_of,
)


def fit(config: TrainConfig) -> dict[str, Any]:
    """Train as `config` says; write the run's folder and return what stands in run.json."""
    keras.utils.set_random_seed(config.seeds[0])
    started = time.time()
    records, pixels, split = load_prepared(config.prepared)
    features = Features({}, [], []) if config.start else extract(config, records, pixels)
    validation = np.flatnonzero([record.part in VALIDATION for record in records])
    views = FreshViews(config, records, pixels) if config.fresh else CachedViews(config, features)
    examples = examples_of(config, records, views, features, trained_on(config, records), validation)
    if config.outside and not any(record.part == SHOWN for record in records):
        raise ValueError(f"{config.prepared} shows no pictures of other cultures: outside cannot be learnt")

    model = build_model(config.shape, weights=config.base_weights, precision=config.precision)
    if config.start:
        facts_of(config.start)
        given = load_release(config.start / CHECKPOINT).weights
        known = {name: value for name, value in given.items() if name not in (OUTSIDE, USUAL)}  # these are learnt anew
        load_weights(model, weights_of(model) | known)
    else:
        set_directions(model, features.directions)
        solve_head(config, model, features.features, examples)
    stages: dict[str, dict[str, Any]] = {}
    if config.measured_by:
        _repeat(config, model, examples, config.measured_by)
        prior = facts_of(config.measured_by)["prior"]
    else:
        stages, logits = _train(config, model, examples, [records[i].group for i in validation])
        prior = _prior(config, logits, examples)
    weights = weights_of(model)
    load_weights(model, weights | {"head/bias": weights["head/bias"] + np.array(prior, np.float32)})
    learn_strangers(config, model, examples, records, pixels)
    if config.measured_by:
        answers = load_answers(config.measured_by)
        keep_usual(model, load_release(config.measured_by / CHECKPOINT).weights)
    else:
        asked = examples.views.reader(model)(validation)
        keep_usual(model, usual_distance(model, asked))
        found = ask_head(model, asked)
        answers = Answers(validation, found[LOGITS], found[OOD_SCORE], examples.truth[validation])
    report = {
        "config": to_values(config),
        "recipe": recipe_so_far(config, stages),
        "split": split["digest"],
        "parts": split["parts"],
        "leaks": split["leaks"],
        "trained_on": len(examples.train),
        "stages": stages,
        "prior": prior,
        "seconds": round(time.time() - started),
        "environment": environment(),
    }
    _write(config, model, answers, records, report)
    return report


def _train(
    config: TrainConfig, model: keras.Model, examples: Examples, groups: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], NDArray[np.float32]]:
    """Every stage's validation numbers, and the validation logits of the best, whose weights `model` has in the end.

    `groups` are those of the validation pictures.
    """
    rows, truth = examples.validation, examples.truth[examples.validation]
    first = START if config.start else HEAD
    now = examples.views.reader(model)(rows) if config.start else examples.features[0][rows]
    found = {first: (weights_of(model), ask_head(model, now)[LOGITS])}
    for seed in config.seeds if config.epochs else ():
        load_weights(model, found[first][0])
        tuned = finetune(config, model, examples, seed=seed)
        found[f"{SEED}{seed}"] = (tuned.weights, tuned.logits)
    stages = {name: _measure(logits, truth, groups) for name, (_, logits) in found.items()}
    best = best_stage(stages)
    load_weights(model, found[best][0])
    return stages, found[best][1]


def _repeat(config: TrainConfig, model: keras.Model, examples: Examples, run: Path) -> None:
    """What made the best stage of `run`, once more with the examples that there are now."""
    facts = facts_of(run)
    changed = {n: v for n, v in to_values(config).items() if n not in PLACES and facts["config"].get(n) != v}
    if changed:
        raise ValueError(f"{run} was trained with other settings: {', '.join(changed)}")
    before = recipe_of(config.start) if config.start else []
    if settings_of(before) != settings_of(recipe_of(run)[:-1]):
        raise ValueError(f"{config.start or 'ImageNet'} was not made as what {run} starts from")
    best = best_stage(facts["stages"])
    if best not in (START, HEAD):
        seed = int(best.removeprefix(SEED))
        tuned = finetune(config, model, examples, seed=seed, epochs=best_epoch(run, seed))
        load_weights(model, tuned.weights)


def _prior(config: TrainConfig, logits: NDArray[np.float32], examples: Examples) -> list[float]:
    """What to add to the logits, [C]: `prior` of the log frequencies, in the units that the temperature takes away."""
    counts = np.bincount(examples.truth[examples.train], minlength=examples.classes).clip(1)
    temperature = temperature_of(logits, examples.truth[examples.validation])
    return [float(value) for value in config.prior * temperature * np.log(counts / counts.mean())]


def _measure(logits: NDArray[np.float32], truth: NDArray[np.int64], groups: Sequence[str]) -> dict[str, Any]:
    temperature = temperature_of(logits, truth)
    return {"temperature": temperature, **summary(np.exp(log_softmax(logits / temperature)), truth, groups)}


def _write(
    config: TrainConfig,
    model: keras.Model,
    answers: Answers,
    records: Sequence[Record],
    report: dict[str, Any],
) -> None:
    config.run.mkdir(parents=True, exist_ok=True)
    if config.measured_by:
        measured = load_release(config.measured_by / CHECKPOINT)
        calibration = measured.calibration
        facts: dict[str, Any] = {
            name: measured.facts[name] for name in ("abstention", GROUP_WEIGHT) if name in measured.facts
        }
    else:
        calibration, reached = calibrate(
            answers.logits,
            answers.truth,
            answers.strangeness,
            evened_out([records[i].group for i in answers.rows], config.group_weight),
            honest=[records[i].part in (ARTIST, SOURCE) for i in answers.rows],
            target_accuracy=config.target_accuracy,
            known_share=config.known_share,
        )
        if reached["pictures"] == ALL:
            print("no artist and no source is held out: the abstention threshold promises more than strangers will get")
        facts = {"abstention": {"target": config.target_accuracy, **reached}, GROUP_WEIGHT: config.group_weight}
    release = Release(0, config.labels, config.shape, calibration, weights_of(model), facts)
    save_release(release, config.run / CHECKPOINT)
    np.savez(config.run / ANSWERS, **vars(answers))
    (config.run / RUN).write_text(json.dumps(report, indent=1) + "\n")
