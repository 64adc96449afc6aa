"""The run: head on cached features, then upper blocks, then what the validation pictures say about the answers.

RUN/run.json            config, recipe, split, environment, seconds: written when the run is done
RUN/checkpoint/         model.safetensors and release.json, as `release` will publish them
RUN/validation.npz      logits, ood_score, truth and record number of every validation picture
RUN/seed_<n>/           a fine-tuning: its epochs, for TensorBoard too, and what a killed run goes on from
"""

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans

from serving.contract import OOD_SCORE
from training.calibrate import ALL, calibrate, temperature_of
from training.checkpoint import Release, load_release, save_release
from training.config import PLACES, TrainConfig, from_values, to_values
from training.data import CachedViews, Examples, FreshViews, Rows, Views
from training.features import Features, extract, set_directions, trained_on
from training.finetune import best_epoch, finetune
from training.head import even_out, picture_weights, project, solve, standardise
from training.layers import LOGITS, LinearHead
from training.metrics import evened_out, log_softmax, summary
from training.model import ask_head, build_model, load_weights, weights_of
from training.prepare import load_prepared
from training.records import ARTIST, SHOWN, SOURCE, STRANGE, VALIDATION, Record
from training.shape import CHANNELS

CHECKPOINT: Final = "checkpoint"
ANSWERS: Final = "validation.npz"
RUN: Final = "run.json"
GROUP_WEIGHT: Final = "calibration_group_weight"  # in a checkpoint's facts: what its temperatures were found with
OUTSIDE, USUAL = "head/outside", "head/usual"  # weights that only a head with the setting `outside` has
START, HEAD, SEED = "start", "head", "seed "  # stages of a run
EMBEDDED_PICTURES: Final = 3000  # looked at for the embedding's directions


@dataclass(frozen=True)
class Answers:
    """Logits [N, C] and ood_score [N] for records `rows`, and their true labels."""

    rows: NDArray[np.int64]
    logits: NDArray[np.float32]
    strangeness: NDArray[np.float32]
    truth: NDArray[np.int64]


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
        _facts(config.start)
        given = load_release(config.start / CHECKPOINT).weights
        known = {name: value for name, value in given.items() if name not in (OUTSIDE, USUAL)}  # these are learnt anew
        load_weights(model, weights_of(model) | known)
    else:
        set_directions(model, features.directions)
        solve_head(config, model, features.features, examples)
    stages: dict[str, dict[str, Any]] = {}
    if config.measured_by:
        _repeat(config, model, examples, config.measured_by)
        prior = _facts(config.measured_by)["prior"]
    else:
        stages, logits = _train(config, model, examples, [records[i].group for i in validation])
        prior = _prior(config, logits, examples)
    weights = weights_of(model)
    load_weights(model, weights | {"head/bias": weights["head/bias"] + np.array(prior, np.float32)})
    asked = np.empty(0, np.float32) if config.measured_by else examples.views.reader(model)(validation)
    _know_strangers(config, model, examples, records, pixels, asked)
    if config.measured_by:
        answers = load_answers(config.measured_by)
    else:
        found = ask_head(model, asked)
        answers = Answers(validation, found[LOGITS], found[OOD_SCORE], examples.truth[validation])
    report = {
        "config": to_values(config),
        "recipe": _recipe(config, stages),
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


def examples_of(
    config: TrainConfig,
    records: Sequence[Record],
    views: Views,
    features: Features,
    train: Rows,
    validation: Rows,
) -> Examples:
    """The pictures `train`, weighed as `config` says, and those that judge."""
    truth = np.array([config.labels.index(r.culture) if r.part not in STRANGE else -1 for r in records])
    weights = picture_weights(truth[train], [records[i].group for i in train], group_weight=config.group_weight)
    return Examples(views, features.features, train, validation, truth, weights, len(config.labels))


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
    facts = _facts(run)
    changed = {n: v for n, v in to_values(config).items() if n not in PLACES and facts["config"].get(n) != v}
    if changed:
        raise ValueError(f"{run} was trained with other settings: {', '.join(changed)}")
    before = recipe_of(config.start) if config.start else []
    if _settings(before) != _settings(recipe_of(run)[:-1]):
        raise ValueError(f"{config.start or 'ImageNet'} was not made as what {run} starts from")
    best = best_stage(facts["stages"])
    if best not in (START, HEAD):
        seed = int(best.removeprefix(SEED))
        tuned = finetune(config, model, examples, seed=seed, epochs=best_epoch(run, seed))
        load_weights(model, tuned.weights)


def best_stage(stages: dict[str, dict[str, Any]]) -> str:
    """The stage whose weights a run keeps: the one with the least validation NLL."""
    return min(stages, key=lambda name: float(stages[name]["nll"]))


def _recipe(config: TrainConfig, stages: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """How the network came about: the config of each run from the first on, and the stage whose weights it kept."""
    if config.measured_by:
        stages = _facts(config.measured_by)["stages"]
    before = recipe_of(config.start) if config.start else []
    return [*before, {"config": to_values(config), "stage": best_stage(stages)}]


def recipe_of(run: Path) -> list[dict[str, Any]]:
    """The recipe of a finished run; put together from the runs that it names where it was not written down yet."""
    facts = _facts(run)
    found: list[dict[str, Any]] = facts.get("recipe") or _recipe(from_values(facts["config"]), facts["stages"])
    return found


def _settings(recipe: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    """What two recipes must have in common to be one."""
    return [({n: v for n, v in each["config"].items() if n not in PLACES}, each["stage"]) for each in recipe]


def _prior(config: TrainConfig, logits: NDArray[np.float32], examples: Examples) -> list[float]:
    """What to add to the logits, [C]: `prior` of the log frequencies, in the units that the temperature takes away."""
    counts = np.bincount(examples.truth[examples.train], minlength=examples.classes).clip(1)
    temperature = temperature_of(logits, examples.truth[examples.validation])
    return [float(value) for value in config.prior * temperature * np.log(counts / counts.mean())]


def _facts(run: Path) -> dict[str, Any]:
    """What stands in run.json. Raises ValueError when there is no finished run."""
    if not (run / RUN).exists():
        raise ValueError(f"{run} is no finished run: run `python -m training fit` first")
    facts: dict[str, Any] = json.loads((run / RUN).read_text())
    return facts


def _know_strangers(
    config: TrainConfig,
    model: keras.Model,
    examples: Examples,
    records: Sequence[Record],
    pixels: NDArray[np.uint8],
    asked: NDArray[np.float32],
) -> None:
    """Tell the head where training pictures lie, as the network sees them now, and what other cultures look like.

    `asked` is what the head reads of the validation pictures, unless another run was measured on them.
    """
    shape, head = config.shape, model.get_layer("head")
    standard = np.asarray(head.standardise(examples.views.reader(model)(examples.train)))
    axes = project(standard[:, shape.lowest()], shape.axes)
    load_weights(model, weights_of(model) | {"head/axes": axes})
    places = np.asarray(head.place(standard))
    found = KMeans(min(shape.centres, len(places)), n_init=1, random_state=0).fit(places).cluster_centers_
    centres = np.resize(found / np.linalg.norm(found, axis=1, keepdims=True), (shape.centres, shape.axes))
    load_weights(model, weights_of(model) | {"head/centres": centres})
    if config.outside:
        outside = _others(config, model, examples, records, pixels, standard)
        usual = (
            load_release(config.measured_by / CHECKPOINT).weights[USUAL] if config.measured_by else _usual(head, asked)
        )
        load_weights(model, weights_of(model) | {OUTSIDE: outside, USUAL: usual})


def _others(
    config: TrainConfig,
    model: keras.Model,
    examples: Examples,
    records: Sequence[Record],
    pixels: NDArray[np.uint8],
    standard: NDArray[np.float32],
) -> NDArray[np.float32]:
    """What the head reads strangers by, [F + 1]: learnt from training pictures, `standard`, and from other cultures.

    Both weigh the same, and so do the classes; where no artist is named, each work counts by itself. All are looked at
    without their colours too, as more of one side are plates.
    """
    head, views = model.get_layer("head"), FreshViews(config, records, pixels)
    shown = np.flatnonzero([record.part == SHOWN for record in records])
    rows = np.concatenate([examples.train, shown])

    def seen(rows: Rows, *, grey: bool) -> NDArray[np.float32]:
        return np.asarray(head.standardise(views.reader(model, grey=grey)(rows)))[:, own]

    own = config.shape.standardised()
    read = np.concatenate([standard[:, own], seen(shown, grey=False), seen(rows, grey=True)])
    classes = np.concatenate([examples.truth[examples.train], np.full(len(shown), examples.classes)])
    groups = [records[i].artist or records[i].work for i in rows]
    weights = picture_weights(classes, groups, group_weight=config.group_weight)
    weights[classes == examples.classes] *= examples.classes
    strange = (classes == examples.classes).astype(np.int64)
    shift, scale = standardise(read)  # once more: fine-tuning has moved them
    kernel, bias = solve(
        (read - shift) * scale,
        np.tile(strange, 2),
        np.tile(weights, 2),
        classes=2,
        weight_decay=config.weight_decay,
        smoothing=0.0,
    )
    outside = (kernel[:, 1] - kernel[:, 0]) * scale
    return np.append(outside, bias[1] - bias[0] - shift @ outside)


def _usual(head: LinearHead, asked: NDArray[np.float32]) -> NDArray[np.float32]:
    """The distance that one known picture in a hundred exceeds, and a unit in which half of them are far below it."""
    half, most = np.quantile(np.asarray(head.distance(head.standardise(asked))), [0.5, 0.99])
    return np.array([most, max((most - half) / 20, 1e-3)], np.float32)


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


def solve_head(
    config: TrainConfig, model: keras.Model, views: Sequence[NDArray[np.float32]], examples: Examples
) -> None:
    """The head's optimum on the training pictures, and the embedding's directions.

    With `config.consistency` views are what must not change the answer; without, they are examples like the pictures.
    """
    train, others = examples.train, views[1:]
    seen = views[:1] if config.consistency else views
    known = np.concatenate([view[train] for view in seen])
    own, slices = config.shape.standardised(), config.shape.slices()
    shift, scale = standardise(known[:, own])
    known[:, own] = (known[:, own] - shift) * scale
    pairs = [
        slice(slices[n].start + 2 * CHANNELS[n], slices[n].stop) for n in config.shape.blocks if config.shape.rank(n)
    ]
    factors = even_out(known, pairs)
    truth, weights = np.tile(examples.truth[train], len(seen)), np.tile(examples.weights, len(seen))
    penalties = []
    if config.consistency:
        units = np.ones(known.shape[1], np.float32)
        units[own] = scale
        for place, factor in zip(pairs, factors, strict=True):
            units[place] = factor
        shares = np.sqrt(weights / weights.sum()).astype(np.float32)[:, None]
        for view in others:
            penalties.append((config.consistency / len(others), (view[train] - views[0][train]) * units * shares))
    kernel, bias = solve(
        known,
        truth,
        weights,
        classes=examples.classes,
        weight_decay=config.weight_decay,
        smoothing=config.label_smoothing,
        penalties=penalties,
    )
    for place, factor in zip(pairs, factors, strict=True):
        kernel[place] *= factor  # the network reads covariances as they are
    embedded = known[: len(train) : max(1, len(train) // EMBEDDED_PICTURES), config.shape.embedded()]
    head = {"shift": shift, "scale": scale, "kernel": kernel, "bias": bias,
            "projection": project(embedded, config.embedding_size)}  # fmt: skip
    load_weights(model, weights_of(model) | {f"head/{name}": value for name, value in head.items()})


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


def load_answers(run: Path) -> Answers:
    """The validation answers of a run. Raises ValueError when there is no finished run."""
    _facts(run)
    with np.load(run / ANSWERS) as saved:
        return Answers(**saved)
