"""`python -m training fit`, killed without a warning wherever it hurts, and started again."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.training.toy import LABELS, write_toml, write_toy
from training.augment import Augmentation
from training.config import TrainConfig

pytestmark = [pytest.mark.training, pytest.mark.timeout(900)]
ROOT = Path(__file__).parents[2]


def start(config: TrainConfig, command: str = "fit") -> subprocess.Popen[bytes]:
    toml = write_toml(config.run.with_suffix(".toml"), config)
    with config.run.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "training", command, "--config", str(toml)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=log, stderr=log,
        )  # fmt: skip


def finish(config: TrainConfig, command: str = "fit") -> None:
    with start(config, command) as process:
        assert process.wait() == 0, config.run.with_suffix(".log").read_text()[-2000:]


def kill_when(config: TrainConfig, seen: Callable[[], bool]) -> None:
    with start(config) as process:
        while not seen():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
        process.kill()


def epochs(config: TrainConfig, seed: int) -> list[dict[str, float]]:
    path = config.run / f"seed_{seed}/epochs.csv"
    if not path.exists():
        return []
    with path.open() as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@dataclass(frozen=True)
class Killed:
    """A run that was killed three times, the same run left alone, and what stood where after the kills."""

    config: TrainConfig
    unbroken: TrainConfig
    written: dict[str, int]  # file -> when it was written, in nanoseconds
    done: list[int]  # epochs that seed 0 and seed 1 had done when they were killed


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    folder = tmp_path_factory.mktemp("resume")
    config = TrainConfig(
        data=write_toy(folder / "data"), prepared=folder / "prepared", run=folder / "run", labels=LABELS,
        base_weights="random", random_share=0.15, artist_share=0.2, source_share=0.2, blocks=(4, 5), ranks=(0, 4),
        embedding_size=3, views=2, augmentation=Augmentation(side=64), batch=4, epochs=5, patience=5, averaging=0.5,
        seeds=(0, 1),
    )  # fmt: skip
    finish(config, "prepare")

    def found(pattern: str) -> list[Path]:
        return list((config.prepared / "features").glob(pattern))

    kill_when(config, lambda: bool(found("*/.features_1_*.npy")))  # in the second view's extraction
    written = {"view 0": found("*/features_0.npy")[0].stat().st_mtime_ns}
    assert not found("*/features_1_*.npy")
    done = []
    for seed in config.seeds:
        kill_when(config, lambda seed=seed: bool(epochs(config, seed)))  # type: ignore[misc]  # in a later epoch
        done.append(len(epochs(config, seed)))
    written["seed 0"] = (config.run / "seed_0/tuned.npz").stat().st_mtime_ns
    finish(config)
    unbroken = replace(config, run=folder / "unbroken")
    finish(unbroken)
    return Killed(config, unbroken, written, done)


def test_views_that_were_computed_are_not_computed_again(killed: Killed) -> None:
    (view,) = (killed.config.prepared / "features").glob("*/features_0.npy")
    assert view.stat().st_mtime_ns == killed.written["view 0"]


def test_seed_that_was_done_is_not_trained_again(killed: Killed) -> None:
    assert (killed.config.run / "seed_0/tuned.npz").stat().st_mtime_ns == killed.written["seed 0"]


@pytest.mark.parametrize("seed", [0, 1])
def test_epochs_go_on_where_they_were(killed: Killed, seed: int) -> None:
    assert 1 <= killed.done[seed] < killed.config.epochs
    rows, expected = epochs(killed.config, seed), epochs(killed.unbroken, seed)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    for row, other in zip(rows, expected, strict=True):
        assert row == pytest.approx(other, rel=1e-2)


def test_run_comes_to_what_it_would_have_come_to(killed: Killed) -> None:
    one, other = (json.loads((c.run / "run.json").read_text())["stages"] for c in (killed.config, killed.unbroken))
    assert one.keys() == other.keys()
    for name, row in one.items():
        assert row["nll"] == pytest.approx(other[name]["nll"], rel=1e-2)
