"""Publish a run: its checkpoint, its numbers, a model card and a data card, unless the release before it was better."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from training.cards import data_card, model_card
from training.checkpoint import FACTS, WEIGHTS, Release, digest, load_release, probe_answers, save_release
from training.config import PLACES, TrainConfig, from_values
from training.crossvalidate import CROSSVALIDATION
from training.evaluate import EVALUATION
from training.prepare import load_prepared
from training.runs import CHECKPOINT, RUN, recipe_of

MODEL_CARD: Final = "README.md"
DATA_CARD: Final = "DATA.md"
COMPARED: Final = ("artist-disjoint", "all")  # slices that must not get worse
SLACK: Final = 0.005  # of accuracy, and twice this of NLL: less is noise between seeds


class Regression(ValueError):
    """The new model is worse than the released one, or cannot be compared with it."""


def release(
    run: Path, out: Path, *, before: Path | None = None, version: int | None = None, force: bool = False
) -> Release:
    """Write `out` from a run that was evaluated. Raises Regression unless `force`, against what `before` holds.

    `before` is `out` where nothing else is said: a release takes the place of the one before it. Raises ValueError when
    numbers, run and prepared pictures do not belong together, whatever is forced.
    """
    facts, config = json.loads((run / RUN).read_text()), config_of(run)
    records, _, split = load_prepared(config.prepared)
    if split["digest"] != facts["split"]:
        raise ValueError(
            f"{run} was trained on another split than {config.prepared} holds: run `python -m training prepare` with "
            "the run's data and settings, or `fit` again"
        )
    # A model that was trained on everything is vouched for by the run before it.
    evaluation = evaluation_of(config.measured_by or run, facts["split"])
    before = before or out
    latest = json.loads((before / FACTS).read_text())["version"] if (before / FACTS).exists() else 0
    if latest and not force:
        refuse_regression(evaluation["model"], facts["split"], load_release(before))
    trained = load_release(run / CHECKPOINT)
    known: dict[str, Any] = {
        **trained.facts,
        "released": datetime.now(UTC).date().isoformat(),
        "trained_on": facts["trained_on"],
        "measured_on_other_weights": bool(config.measured_by),
        "split": split["digest"],
        "metrics": evaluation["model"],
        "comparisons": evaluation["comparisons"],
        "crossvalidation": crossvalidation_of(config.measured_by or run, facts),
        "baselines": {name: parts["all"] for name, parts in evaluation["baselines"].items()},
        "stages": evaluation["stages"],
        "strangers": evaluation["strangers"],
        "per_class": evaluation["per_class"],
        "leaks": evaluation["leaks"],
        "recipe": public_recipe(recipe_of(run)),
        "rivals": {name: public_recipe(recipe) for name, recipe in evaluation["rivals"].items()},
        "sources": dict(Counter(record.source for record in records).most_common()),
        "config": public_config(facts["config"]),
        "environment": facts["environment"],
        "answers": probe_answers(trained).round(6).tolist(),
    }
    number = version or latest + 1
    published = Release(number, trained.labels, trained.shape, trained.calibration, trained.weights, known)
    save_release(published, out)
    (out / MODEL_CARD).write_text(model_card(published))
    (out / DATA_CARD).write_text(data_card(records, split))
    return published


def evaluation_of(run: Path, split: str) -> dict[str, Any]:
    """The numbers of a run. Raises ValueError when there are none, or they are of other weights or another split."""
    again = f"run `python -m training evaluate --run {run}`"
    if not (run / EVALUATION).exists():
        raise ValueError(f"{run} has no {EVALUATION}: {again} first")
    found: dict[str, Any] = json.loads((run / EVALUATION).read_text())
    if json.loads((run / RUN).read_text())["split"] != split:
        raise ValueError(
            f"{run} was measured on another split than the run that it vouches for was trained on: `fit` it again"
        )
    for name, own in (("split", split), ("checkpoint", digest(run / CHECKPOINT / WEIGHTS))):
        if found.get(name) != own:
            raise ValueError(f"{run / EVALUATION} is about another {name} than the run has: {again} again")
    return found


def crossvalidation_of(run: Path, facts: dict[str, Any]) -> dict[str, Any] | None:
    """What `crossvalidate` left in a run's folder; None when nobody ran it. Raises ValueError when it is of others.

    `facts` are the run.json whose split and settings it must have.
    """
    path = run / CROSSVALIDATION
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    if found["split"] != facts["split"] or public_config(found["config"]) != public_config(facts["config"]):
        raise ValueError(f"{path} is of another split or other settings: run `python -m training crossvalidate` again")
    return {name: found[name] for name in ("folds", "model", "comparisons")}


def config_of(run: Path) -> TrainConfig:
    """The settings that a run was made with."""
    return from_values(json.loads((run / RUN).read_text())["config"])


def refuse_regression(new: dict[str, Any], split: str, current: Release) -> None:
    """Raises Regression when a slice in COMPARED got worse, or when the two were measured on different pictures."""
    if current.facts.get("split") != split:
        raise Regression(
            f"release {current.version} was measured on another split, so nothing says that this run is better; "
            "--force publishes it all the same"
        )
    for name in (each for each in COMPARED if each in new and each in current.facts["metrics"]):
        before, after = current.facts["metrics"][name], new[name]
        if after["accuracy"] < before["accuracy"] - SLACK or after["nll"] > before["nll"] + 2 * SLACK:
            raise Regression(
                f"{name}: accuracy {before['accuracy']:.3f} -> {after['accuracy']:.3f}, NLL {before['nll']:.3f} -> "
                f"{after['nll']:.3f}; --force publishes it all the same"
            )


def public_config(values: dict[str, Any]) -> dict[str, Any]:
    """A run's settings without the paths of the machine that it ran on."""
    return {name: value for name, value in values.items() if name not in PLACES}


def public_recipe(recipe: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same of every run that a network went through."""
    return [{**each, "config": public_config(each["config"])} for each in recipe]
