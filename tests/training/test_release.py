"""What is published of a run, and which runs are refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.cards import model_card
from training.checkpoint import load_release
from training.config import TrainConfig, to_values
from training.crossvalidate import crossvalidate
from training.prepare import load_prepared
from training.records import TRAIN, VALIDATION
from training.release import Regression, release
from training.runs import CHECKPOINT

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]  # TensorFlow and Keras warn about themselves


@pytest.fixture(scope="module")
def published(finished_run: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("published")
    release(finished_run.run.with_name("final"), out)
    return out


def test_release_is_trained_on_everything_and_says_so(published: Path, finished_run: TrainConfig) -> None:
    card = (published / "README.md").read_text()
    assert "all labelled pictures" in card
    records = load_prepared(finished_run.prepared)[0]
    labelled = [record for record in records if record.part in (TRAIN, *VALIDATION)]
    assert load_release(published).facts["trained_on"] == len(labelled)
    recipe = load_release(published).facts["recipe"]
    assert [each["config"]["epochs"] for each in recipe] == [finished_run.epochs]
    assert "1. VGG16 as it was, and a linear head on its texture statistics" in card
    texts = [card, *((published / name).read_text() for name in ("DATA.md", "release.json"))]
    assert not any(str(finished_run.data) in text or str(finished_run.run) in text for text in texts)


def test_release_refuses_a_worse_model_unless_forced(
    finished_run: TrainConfig, published: Path, tmp_path: Path
) -> None:
    better = Path(shutil.copytree(published, tmp_path / "better"))
    facts = json.loads((better / "release.json").read_text())
    facts["metrics"]["all"]["nll"] -= 0.5
    (better / "release.json").write_text(json.dumps(facts))
    with pytest.raises(Regression, match="all: accuracy"):
        release(finished_run.run, better)
    assert release(finished_run.run, better, force=True).version == 2
    facts = json.loads((better / "release.json").read_text())
    facts["calibration"]["gone"] = 1.0
    (better / "release.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="made by another version of Whence: fit again"):
        release(finished_run.run, better)
    assert release(finished_run.run, better, force=True).version == 3


def refusal(run: Path, tmp_path: Path) -> str:
    with pytest.raises(ValueError, match=r"run `python -m training|`fit` it") as refused:
        release(run, tmp_path / "refused", force=True)
    assert not (tmp_path / "refused").exists()
    return str(refused.value)


def copied(run: Path, tmp_path: Path, **changes: Any) -> Path:
    """The run's folder again, with other facts in run.json."""
    run = Path(shutil.copytree(run, tmp_path / "copied"))
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | changes))
    return run


def test_card_has_what_the_folds_said_of_these_settings(finished_run: TrainConfig, tmp_path: Path) -> None:
    run = copied(finished_run.run, tmp_path)
    assert "in folds" not in model_card(release(run, tmp_path / "without"))
    crossvalidate(replace(finished_run, run=run), against={"same": finished_run}, count=2)
    told = model_card(release(run, tmp_path / "with", version=1))
    assert all(text in told for text in ("## Its head in folds", "each of 2 folds", "artist-disjoint", "`same`"))
    crossvalidate(replace(finished_run, run=run, weight_decay=9.0), against={}, count=2)
    assert "other settings" in refusal(run, tmp_path)


def test_release_refuses_numbers_of_other_weights(
    finished_run: TrainConfig, fresh_run: TrainConfig, tmp_path: Path
) -> None:
    run = copied(finished_run.run, tmp_path)
    shutil.copytree(fresh_run.run / CHECKPOINT, run / CHECKPOINT, dirs_exist_ok=True)  # trained again, not measured
    assert "another checkpoint" in refusal(run, tmp_path)
    final = copied(finished_run.run.with_name("final"), tmp_path / "all",
                   config=to_values(replace(finished_run, measured_by=run)))  # fmt: skip
    assert f"{run}/evaluation.json is about another checkpoint" in refusal(final, tmp_path)


def test_release_refuses_numbers_of_another_split(finished_run: TrainConfig, tmp_path: Path) -> None:
    assert "another split than" in refusal(copied(finished_run.run, tmp_path, split="another"), tmp_path)
    measured = copied(finished_run.run, tmp_path / "measured", split="another")
    final = copied(finished_run.run.with_name("final"), tmp_path / "all",
                   config=to_values(replace(finished_run, measured_by=measured)))  # fmt: skip
    assert f"{measured} was measured on another split" in refusal(final, tmp_path)


def test_release_refuses_numbers_of_before_they_named_what_they_are_of(
    finished_run: TrainConfig, tmp_path: Path
) -> None:
    run = copied(finished_run.run, tmp_path)
    evaluation = json.loads((run / "evaluation.json").read_text())
    del evaluation["split"], evaluation["checkpoint"]
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    assert "run `python -m training evaluate" in refusal(run, tmp_path)
