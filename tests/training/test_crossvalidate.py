"""Heads measured by folds: who is held out, and what is said about it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.toy import write_toml
from training.__main__ import main
from training.config import TrainConfig
from training.prepare import load_prepared
from training.records import ARTIST, OTHER, RANDOM, SHOWN, SOURCE, TOO_CLOSE, TRAIN
from training.splits import folds

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]  # TensorFlow and Keras warn about themselves


@pytest.mark.parametrize(("part", "key"), [(RANDOM, "file"), (ARTIST, "artist"), (SOURCE, "source")])
def test_every_group_is_held_out_once_and_whole(finished_run: TrainConfig, part: str, key: str) -> None:
    records, _, _ = load_prepared(finished_run.prepared)
    found = folds(records, finished_run.labels, part=part, count=3)
    held = [{i for i, record in enumerate(fold) if record.part == part} for fold in found]
    assert len(set.union(*held)) == sum(map(len, held)) > 0
    for fold, own in zip(found, held, strict=True):
        names = {getattr(records[i], key) for i in own} - {""}
        assert names
        assert not names & {getattr(record, key) for record in fold if record.part == TRAIN}
        assert not {fold[i].cluster for i in own} & {record.cluster for record in fold if record.part == TRAIN}
        assert {record.part for record in fold} <= {TRAIN, SHOWN, OTHER, TOO_CLOSE, part}


def test_no_fold_where_there_are_fewer_groups(finished_run: TrainConfig) -> None:
    records, _, _ = load_prepared(finished_run.prepared)
    assert folds(records, finished_run.labels, part=ARTIST, count=len(records)) == []


def test_two_heads_are_asked_the_same_and_compared(
    finished_run: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_toml(tmp_path / "own.toml", finished_run)
    rival = write_toml(tmp_path / "rival.toml", replace(finished_run, weight_decay=50.0))
    options = ["--folds", "2", "--run", str(tmp_path / "run"), "--config", str(config)]
    assert main(["crossvalidate", *options, "--against", f"flat={rival}", "--against", f"same={config}"]) == 0
    report = json.loads((tmp_path / "run/crossvalidation.json").read_text())
    assert report["split"] == load_prepared(finished_run.prepared)[2]["digest"]
    rows = report["model"]
    assert [rows[name]["count"] for name in ("random", "artist-disjoint", "source-disjoint")] == [36, 36, 12]
    assert rows["all"]["count"] == rows["objects"]["count"] + rows["paintings, prints, drawings"]["count"] == 84
    for name, same in report["comparisons"]["same"].items():
        assert (same["accuracy"], same["nll"]) == (0, 0)
        assert report["comparisons"]["flat"][name]["nll"] != 0
    written = (tmp_path / "run/crossvalidation.md").read_text()
    assert written.endswith(f"in 2 folds\n\n{capsys.readouterr().out}")
    assert "Against `flat`:" in written


def test_configs_of_other_pictures_are_not_compared(
    finished_run: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_toml(tmp_path / "own.toml", finished_run)
    rival = write_toml(tmp_path / "rival.toml", replace(finished_run, labels=finished_run.labels[:2]))
    assert main(["crossvalidate", "--config", str(config), "--against", str(rival)]) == 1
    assert "rival is of other pictures" in capsys.readouterr().err


def test_more_folds_than_groups_are_refused(
    finished_run: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_toml(tmp_path / "own.toml", finished_run)
    assert main(["crossvalidate", "--config", str(config), "--folds", "500"]) == 1
    assert "fewer than 500 pictures" in capsys.readouterr().err
    assert main(["crossvalidate", "--config", str(config), "--folds", "1"]) == 1
    assert "expected two or more" in capsys.readouterr().err
