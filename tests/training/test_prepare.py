"""What `prepare` leaves when it is killed, and what is read of it."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import LABELS, draw
from training.config import TrainConfig
from training.prepare import PIXELS, RECORDS, SPLIT, load_prepared, prepare

pytestmark = pytest.mark.training  # scikit-learn, for the leak report
ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    """Prepared once, and then a picture that sorts first has come."""
    data, rng = tmp_path / "data", np.random.default_rng(0)
    for label in LABELS:
        (data / label).mkdir(parents=True)
        for i in range(8):
            draw(label, rng).save(data / label / f"{i}.png")
    config = TrainConfig(data=data, prepared=tmp_path / "prepared", labels=LABELS, random_share=0.2)
    prepare(config)
    draw(LABELS[0], rng).save(data / LABELS[0] / "+.png")
    return config


def kill_prepare(config: TrainConfig, *, before: str) -> None:
    """Run it in another process that ends as if killed, no clean-up run, where it would call `before`."""
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from training import prepare\n"
        "from training.config import TrainConfig\n"
        "name, method, data, prepared, *labels = sys.argv[1:]\n"
        "place = getattr(prepare, name) if method else prepare\n"
        "setattr(place, method or name, lambda *arguments, **named: os._exit(9))\n"
        "prepare.prepare(TrainConfig(data=Path(data), prepared=Path(prepared), labels=tuple(labels), random_share=0.2))"
    )
    name, _, method = before.partition(".")
    killed = subprocess.run(
        [sys.executable, "-c", code, name, method, str(config.data), str(config.prepared), *config.labels],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False,
    )  # fmt: skip
    assert killed.returncode == 9, killed.stderr[-500:]


@pytest.mark.parametrize("before", ["split", "durable.remove"])
def test_prepare_killed_while_it_works_leaves_what_was_there(config: TrainConfig, before: str) -> None:
    kill_prepare(config, before=before)
    records, pixels, _ = load_prepared(config.prepared)
    assert len(records) == len(pixels) == 8 * len(LABELS)


@pytest.mark.parametrize("before", ["_keep", "write_records", "durable.write"])
def test_prepare_killed_while_it_writes_leaves_nothing_prepared(config: TrainConfig, before: str) -> None:
    kill_prepare(config, before=before)
    with pytest.raises(ValueError, match="not prepared"):
        load_prepared(config.prepared)


@pytest.mark.parametrize("before", ["split", "_keep", "write_records", "durable.write"])
def test_prepare_after_a_kill_makes_all_of_it(config: TrainConfig, before: str) -> None:
    kill_prepare(config, before=before)
    prepare(config)
    records, pixels, _ = load_prepared(config.prepared)
    assert len(records) == len(pixels) == 8 * len(LABELS) + 1
    assert {path.name for path in config.prepared.iterdir()} == {PIXELS, RECORDS, SPLIT}


def test_unreadable_pictures_leave_no_empty_rows(config: TrainConfig) -> None:
    (config.data / LABELS[0] / "+.png").write_bytes(b"no picture")
    report = prepare(config)
    records, pixels, _ = load_prepared(config.prepared)
    assert list(report["unreadable"]) == [f"{LABELS[0]}/+.png"]
    assert len(records) == len(pixels) == 8 * len(LABELS)
    assert {path.name for path in config.prepared.iterdir()} == {PIXELS, RECORDS, SPLIT}


def test_rules_of_a_collected_folder_are_handed_on(config: TrainConfig) -> None:
    assert "rules" not in load_prepared(config.prepared)[2]
    (config.data / "rules.txt").write_text("keep  named plainly\n")
    prepare(config)
    assert load_prepared(config.prepared)[2]["rules"] == "keep  named plainly\n"


@pytest.mark.parametrize("name", [PIXELS, RECORDS])
def test_files_of_two_runs_are_refused(config: TrainConfig, name: str) -> None:
    other = replace(config, prepared=config.prepared.with_name("other"))
    prepare(other)
    (other.prepared / name).replace(config.prepared / name)
    with pytest.raises(ValueError, match="do not belong together: run `python -m training prepare` again"):
        load_prepared(config.prepared)


@pytest.mark.parametrize("name", [PIXELS, RECORDS, SPLIT])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_file_that_was_cut_off_is_refused(config: TrainConfig, name: str, share: float) -> None:
    path = config.prepared / name
    os.truncate(path, int(share * path.stat().st_size))
    with pytest.raises(ValueError, match="run `python -m training prepare` again"):
        load_prepared(config.prepared)


@pytest.mark.parametrize("name", [PIXELS, RECORDS])
def test_file_that_is_missing_is_said(config: TrainConfig, name: str) -> None:
    (config.prepared / name).unlink()
    with pytest.raises(ValueError, match="is damaged"):
        load_prepared(config.prepared)
