"""The folder of a finished run, read again: its facts, how its network came about, and its answers.

RUN/run.json            config, recipe, split, environment, seconds: written when the run is done
RUN/checkpoint/         model.safetensors and release.json, as `release` will publish them
RUN/validation.npz      logits, ood_score, truth and record number of every validation picture
"""

import json
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training.config import PLACES, TrainConfig, from_values, to_values

CHECKPOINT: Final = "checkpoint"
ANSWERS: Final = "validation.npz"
RUN: Final = "run.json"
GROUP_WEIGHT: Final = "calibration_group_weight"  # in a checkpoint's facts: what its temperatures were found with
START, HEAD, SEED = "start", "head", "seed "  # stages of a run


@dataclass(frozen=True)
class Answers:
    """Logits [N, C] and ood_score [N] for records `rows`, and their true labels."""

    rows: NDArray[np.int64]
    logits: NDArray[np.float32]
    strangeness: NDArray[np.float32]
    truth: NDArray[np.int64]


def load_answers(run: Path) -> Answers:
    """The validation answers of a run. Raises ValueError when there is no finished run."""
    facts_of(run)
    with np.load(run / ANSWERS) as saved:
        return Answers(**saved)


def facts_of(run: Path) -> dict[str, Any]:
    """What stands in run.json. Raises ValueError when there is no finished run."""
    if not (run / RUN).exists():
        raise ValueError(f"{run} is no finished run: run `python -m training fit` first")
    facts: dict[str, Any] = json.loads((run / RUN).read_text())
    return facts


def best_stage(stages: dict[str, dict[str, Any]]) -> str:
    """The stage whose weights a run keeps: the one with the least validation NLL."""
    return min(stages, key=lambda name: float(stages[name]["nll"]))


def recipe_so_far(config: TrainConfig, stages: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """How the network came about: the config of each run from the first on, and the stage whose weights it kept."""
    if config.measured_by:
        stages = facts_of(config.measured_by)["stages"]
    before = recipe_of(config.start) if config.start else []
    return [*before, {"config": to_values(config), "stage": best_stage(stages)}]


def recipe_of(run: Path) -> list[dict[str, Any]]:
    """The recipe of a finished run; put together from the runs that it names where it was not written down yet."""
    facts = facts_of(run)
    found: list[dict[str, Any]] = facts.get("recipe") or recipe_so_far(from_values(facts["config"]), facts["stages"])
    return found


def settings_of(recipe: list[dict[str, Any]]) -> list[tuple[dict[str, Any], str]]:
    """What two recipes must have in common to be one."""
    return [({n: v for n, v in each["config"].items() if n not in PLACES}, each["stage"]) for each in recipe]


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
