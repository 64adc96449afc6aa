"""From pictures to a release on another backend of Keras, in an environment without TensorFlow: `make test-jax`."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.training.toy import LABELS, write_toml, write_toy
from training.__main__ import main
from training.augment import Augmentation
from training.checkpoint import load_release, probe_answers
from training.config import TrainConfig

pytestmark = [
    pytest.mark.training,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(find_spec("tensorflow") is not None, reason="TensorFlow is installed here: see make test-jax"),
]


def command(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A measured run on cached maps, another on fresh pixels that is compared with it, and its release."""
    work = tmp_path_factory.mktemp("work")
    config = TrainConfig(
        data=write_toy(work / "data"), prepared=work / "prepared", run=work / "cached", labels=LABELS,
        base_weights="random", random_share=0.15, artist_share=0.2, source_share=0.2, blocks=(4, 5), ranks=(0, 4),
        embedding_size=3, augmentation=Augmentation(side=64), views=2, batch=4, epochs=2, strangers=8,
    )  # fmt: skip
    cached = write_toml(work / "cached.toml", config)
    fresh = write_toml(work / "fresh.toml", replace(config, run=work / "fresh", cut=4, fresh=True, views=1))
    command("prepare", "--config", cached)
    for toml in (cached, fresh):
        command("fit", "--config", toml)
    command("evaluate", "--run", work / "fresh", "--against", work / "cached")
    command("release", "--run", work / "fresh", "--release", work / "release")
    return work


def test_training_needs_no_tensorflow(work: Path) -> None:
    assert {"keras", "tensorflow"} & sys.modules.keys() == {"keras"}
    assert json.loads((work / "fresh/run.json").read_text())["environment"]["backend"] != "tensorflow"


@pytest.mark.parametrize("run", ["cached", "fresh"])
def test_every_stage_was_gone_through(work: Path, run: str) -> None:
    assert json.loads((work / run / "run.json").read_text())["stages"].keys() == {"head", "seed 0"}
    assert len((work / run / "seed_0/epochs.csv").read_text().splitlines()) == 3
    assert list((work / run / "seed_0/tensorboard").iterdir())


def test_evaluation_has_both_baselines_and_the_comparison(work: Path) -> None:
    report = json.loads((work / "fresh/evaluation.json").read_text())
    assert report["baselines"].keys() == {"majority class", "original recipe"}
    assert "all" in report["comparisons"]["cached"]


def test_release_answers_as_it_recorded(work: Path) -> None:
    released = load_release(work / "release")
    assert probe_answers(released).round(3).tolist() == [
        pytest.approx(row, abs=2e-3) for row in released.facts["answers"]
    ]
