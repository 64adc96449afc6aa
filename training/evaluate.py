"""What a run, or a SavedModel, is worth on the validation pictures: every number for every part, beside two baselines.

RUN/evaluation.json    all numbers
RUN/report.md          the same for people
RUN/*.png              confusion, reliability, risk and coverage, mistakes (the last shows pictures: keep it private)
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from serving import contract
from training import baselines, plots, servables
from training.calibrate import cross_calibrated, energy
from training.checkpoint import WEIGHTS, build_release_model, digest, load_release
from training.config import TrainConfig, from_values
from training.layers import LOGITS
from training.metrics import Floats, evened_out, paired_difference, per_class, reliability, summary
from training.prepare import load_prepared
from training.records import ARTIST, OTHER, RANDOM, SHOWN, SOURCE, TRAIN, Record, classes_of
from training.report import write_report
from training.runs import CHECKPOINT, RUN, Answers, load_answers, recipe_of
from training.strangers import auroc, drawn, photographs

EVALUATION: Final = "evaluation.json"
# Slices of the validation pictures that are reported, in this order.
SLICES: Final[dict[str, Callable[[Record], bool]]] = {
    "random": lambda r: r.part == RANDOM,
    "artist-disjoint": lambda r: r.part == ARTIST,
    "source-disjoint": lambda r: r.part == SOURCE,
    "all": lambda r: True,
    "colour": lambda r: not r.grey,
    "greyscale": lambda r: r.grey,
    "paintings, prints, drawings": lambda r: not r.is_object,
    "objects": lambda r: r.is_object,
}


NO_RUNS: Final[Mapping[str, Path]] = {}


def evaluate(
    run: Path, *, model: Path | None = None, floor: bool = True, against: Mapping[str, Path] = NO_RUNS
) -> dict[str, Any]:
    """Measure the run's answers, or those of the version directory `model`, and write the report. Returns all numbers.

    A run's answers are calibrated by the other half of the validation pictures each, so that nothing is measured on the
    pictures that it was fitted to. A SavedModel's probabilities are taken as they come. `against` are other runs
    on the same split, by name: the answers are compared with theirs picture by picture.
    """
    facts = json.loads((run / RUN).read_text()) if (run / RUN).exists() else {}
    answers = load_answers(run)
    config = from_values(facts["config"])
    records, pixels, split = load_prepared(config.prepared)
    if split["digest"] != facts["split"]:
        raise ValueError(f"{run} was trained on another split than {config.prepared} holds")
    chosen, truth = [records[i] for i in answers.rows], answers.truth
    if model is None:
        found = calibrated(answers, chosen, config.group_weight)
    else:
        found = ask_saved_model(model, pixels, answers.rows, config.labels)
    report = {
        "run": str(run.name),
        "split": facts["split"],
        "checkpoint": digest(run / CHECKPOINT / WEIGHTS),  # whose numbers these are, for `release`
        "answers": "the SavedModel's probabilities" if model else "the run's logits, calibrated by the other half",
        "model": measure(found, truth, chosen, config),
        "comparisons": {
            name: compare(found, load_rival(other, facts, answers.rows), truth, chosen, config.group_weight)
            for name, other in against.items()
        },
        "rivals": {name: recipe_of(other) for name, other in against.items()},
        "baselines": _baselines(config, records, pixels, answers.rows, truth, chosen) if floor else {},
        "strangers": _strangers(config, records, pixels, answers.rows),
        "per_class": per_class(found, truth, config.labels, [record.group for record in chosen]),
        "reliability": reliability(found, truth),
        "stages": facts["stages"],
        "leaks": facts["leaks"],
        "calibration": vars(load_release(run / CHECKPOINT).calibration),
    }
    out = run if model is None else run / f"saved_model_{model.name}"
    out.mkdir(parents=True, exist_ok=True)
    (out / EVALUATION).write_text(json.dumps(report, indent=1) + "\n")
    plots.confusion_matrix(found, truth, config.labels, out / "confusion.png")
    plots.reliability_diagram(found, truth, out / "reliability.png")
    plots.risk_coverage_curves(
        {name: _part(found, truth, chosen, name) for name in list(SLICES)[:3]}, out / "coverage.png"
    )
    plots.mistakes(found, truth, [pixels[i] for i in answers.rows], config.labels, out / "mistakes.png")
    write_report(report, config.labels, out / "report.md")
    return report


def calibrated(answers: Answers, chosen: Sequence[Record], group_weight: float) -> Floats:
    """A run's probabilities, each half of the pictures at temperatures found on the other."""
    halves = [half(record) for record in chosen]
    weights = evened_out([record.group for record in chosen], group_weight)
    return cross_calibrated(answers.logits, answers.truth, weights, halves)


def load_rival(run: Path, facts: dict[str, Any], rows: NDArray[np.int64]) -> Answers:
    """The answers of another run. Raises ValueError when it was not asked the same, so that nothing can be compared."""
    answers, own = load_answers(run), json.loads((run / RUN).read_text())
    same = own["split"] == facts["split"] and own["config"]["labels"] == facts["config"]["labels"]
    if not same or not np.array_equal(answers.rows, rows):
        raise ValueError(f"{run} was measured on another split, or tells other cultures apart")
    return answers


def compare(
    found: Floats, rival: Answers, truth: NDArray[np.int64], chosen: Sequence[Record], group_weight: float
) -> dict[str, dict[str, Any]]:
    """`training.metrics.paired_difference` of every slice that holds a picture."""
    other, differences = calibrated(rival, chosen, group_weight), {}
    for name in SLICES:
        (new, right), (old, _) = _part(found, truth, chosen, name), _part(other, truth, chosen, name)
        if len(right):
            differences[name] = paired_difference(new, old, right, _groups(chosen, name))
    return differences


def half(record: Record) -> int:
    """0 or 1, the same for all pictures of a group: which half of the validation pictures it belongs to."""
    return hashlib.sha256(record.group.encode()).digest()[0] % 2


def measure(found: Floats, truth: NDArray[np.int64], chosen: Sequence[Record], config: TrainConfig) -> dict[str, Any]:
    """`training.metrics.summary` of every slice that holds a picture."""
    parts = {name: _part(found, truth, chosen, name) for name in SLICES}
    return {
        name: summary(*part, _groups(chosen, name), target_accuracy=config.target_accuracy)
        for name, part in parts.items()
        if len(part[1])
    }


def ask_saved_model(
    directory: Path, pixels: NDArray[np.uint8], rows: NDArray[np.int64], labels: tuple[str, ...], *, batch: int = 8
) -> Floats:
    """Probabilities [R, C] of a version directory, by its signature. Raises ValueError when its labels are others."""
    ask = servables.load(directory)
    found = []
    for first in tqdm(range(0, len(rows), batch), "servable", unit="batch", mininterval=5):
        answer = ask(np.ascontiguousarray(pixels[rows[first : first + batch]]))
        names = tuple(name.decode() for name in answer[contract.LABELS][0])
        if names != labels:
            raise ValueError(f"{directory} answers with {', '.join(names)}, the run with {', '.join(labels)}")
        found.append(answer[contract.PROBABILITIES])
    return np.concatenate(found)


def _part(
    found: Floats, truth: NDArray[np.int64], chosen: Sequence[Record], name: str
) -> tuple[Floats, NDArray[np.int64]]:
    mask = np.array([SLICES[name](record) for record in chosen])
    return found[mask], truth[mask]


def _groups(chosen: Sequence[Record], name: str) -> list[str]:
    return [record.group for record in chosen if SLICES[name](record)]


def _strangers(
    config: TrainConfig, records: Sequence[Record], pixels: NDArray[np.uint8], rows: NDArray[np.int64]
) -> dict[str, dict[str, Any]]:
    """How well two scores tell validation pictures from strangers: area under the ROC curve, per kind of stranger.

    `distance` is the servable's ood_score; `energy` reads the logits alone. Of a culture that training was shown these
    are other artists and works. `in colour` is `distance` beside the validation pictures in colour alone: plates, of
    which there are many, are easily told from art that is none.
    """
    released = load_release(config.run / CHECKPOINT)
    model, greatest = build_release_model(released), released.calibration.greatest_ood
    rng = np.random.default_rng(0)

    def some(chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.sort(rng.permutation(chosen)[: config.strangers])

    def scores(pictures: NDArray[np.uint8]) -> dict[str, Floats]:
        parts = [pictures[at : at + 16].astype(np.float32) for at in range(0, len(pictures), 16)]
        found = [model.predict_on_batch(part) for part in tqdm(parts, "strangers", unit="batch", mininterval=5)]
        logits, distance = (np.concatenate([part[name] for part in found]) for name in (LOGITS, contract.OOD_SCORE))
        return {"distance": distance, "energy": energy(logits)}

    beside = some(rows)
    known, colour = scores(np.asarray(pixels[beside])), np.array([not records[i].grey for i in beside])
    kinds = {"drawn, no artworks": drawn(config.strangers // 4)}
    if photos := photographs():
        kinds["photographs"] = np.stack(photos)
    shown = {record.culture for record in records if record.part == SHOWN}
    tried = [record.culture if record.part == OTHER else "" for record in records]
    others = {"other cultures": np.flatnonzero(tried)}
    for culture in sorted({*tried} - {""}) if config.outside else ():
        name = f"{culture}, of which others were shown" if culture in shown else f"{culture}, never shown"
        others[name] = np.flatnonzero(np.array(tried) == culture)
    kinds |= {name: np.asarray(pixels[some(chosen)]) for name, chosen in others.items() if len(chosen)}
    report: dict[str, dict[str, Any]] = {}
    for name, pictures in kinds.items():
        strange = scores(pictures)
        caught = float((strange["distance"] > greatest).mean())
        report[name] = {"count": len(pictures), "called out of distribution": caught}
        report[name] |= {score: auroc(known[score], strange[score]) for score in known}
        report[name]["in colour"] = auroc(known["distance"][colour if colour.any() else ~colour], strange["distance"])
    return report


def _baselines(
    config: TrainConfig,
    records: Sequence[Record],
    pixels: NDArray[np.uint8],
    rows: NDArray[np.int64],
    truth: NDArray[np.int64],
    chosen: Sequence[Record],
) -> dict[str, Any]:
    known = np.flatnonzero([record.part == TRAIN for record in records])
    labels = np.array(classes_of(records, config.labels))
    classes = len(config.labels)
    usual = baselines.majority(labels, train=known, rows=rows, classes=classes)
    original = baselines.original_recipe(
        pixels,
        labels,
        train=known,
        rows=rows,
        classes=classes,
        base_weights=config.base_weights,
        precision=config.precision,
        batch=config.batch,
    )
    return {
        "majority class": measure(usual, truth, chosen, config),
        "original recipe": measure(original, truth, chosen, config),
    }
