"""The whole way from a folder per class, which names no artist and no source, to a release."""

import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import LABELS, draw
from tests.training.toy import write_toml
from training.__main__ import main
from training.augment import Augmentation
from training.calibrate import ALL
from training.checkpoint import load_release
from training.config import TrainConfig
from training.release import Regression, release

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]  # TensorFlow and Keras warn about themselves


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of drawn pictures, prepared, fitted and evaluated; what the commands said is in said.txt."""
    work, rng = tmp_path_factory.mktemp("work"), np.random.default_rng(0)
    for label in LABELS:
        (work / "data" / label).mkdir(parents=True)
        for i in range(12):
            draw(label, rng).save(work / "data" / label / f"{i}.png")
    config = TrainConfig(
        data=work / "data", prepared=work / "prepared", run=work / "run", labels=LABELS, base_weights="random",
        random_share=0.3, blocks=(4, 5), ranks=(0, 4), embedding_size=3, views=1, augmentation=Augmentation(side=64),
        batch=8, strangers=8,
    )  # fmt: skip
    toml = str(write_toml(work / "run.toml", config))
    with (work / "said.txt").open("w") as said, redirect_stdout(said):
        assert main(["prepare", "--config", toml]) == 0
        assert main(["fit", "--config", toml]) == 0
        assert main(["evaluate", "--run", str(config.run)]) == 0
    return work


def test_fit_chooses_the_threshold_on_all_pictures_and_says_so(work: Path) -> None:
    abstention = load_release(work / "run/checkpoint").facts["abstention"]
    assert abstention["pictures"] == ALL
    assert 0 < abstention["coverage"] <= 1
    assert "no artist and no source is held out" in (work / "said.txt").read_text()


def test_evaluate_reports_the_slices_that_there_are(work: Path) -> None:
    found = json.loads((work / "run/evaluation.json").read_text())
    assert {"random", "all"} <= found["model"].keys()
    assert not {"artist-disjoint", "source-disjoint"} & found["model"].keys()
    assert "| random |" in (work / "run/report.md").read_text()


def test_release_compares_the_slices_that_both_have(work: Path, tmp_path: Path) -> None:
    assert release(work / "run", tmp_path).version == 1
    assert release(work / "run", tmp_path).version == 2
    facts = json.loads((tmp_path / "release.json").read_text())
    facts["metrics"]["all"]["nll"] -= 0.5
    (tmp_path / "release.json").write_text(json.dumps(facts))
    with pytest.raises(Regression, match="all: accuracy"):
        release(work / "run", tmp_path)
