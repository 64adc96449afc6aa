"""One run of the whole pipeline on drawn pictures, and what it leaves behind."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from serving import contract
from training.checkpoint import load_release
from training.config import TrainConfig, from_values, load_config, to_values
from training.evaluate import ask_saved_model
from training.export import ExportError, export_release, signature_problems, write_servable
from training.fit import CHECKPOINT, load_answers
from training.model import build_tiny_model
from training.prepare import load_prepared
from training.records import ARTIST, OTHER, TRAIN
from training.release import Regression, release

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]  # TensorFlow and Keras warn about themselves


def test_prepare_writes_pixels_a_split_and_what_leaks(finished_run: TrainConfig) -> None:
    records, pixels, split = load_prepared(finished_run.prepared)
    assert pixels.shape == (39, 224, 224, 3)
    assert {record.part for record in records} >= {TRAIN, ARTIST, OTHER}
    assert set(split["leaks"]) <= {"random", "artist", "source"}
    assert [record.part == OTHER for record in records] == sorted(record.part == OTHER for record in records)


def test_fit_leaves_a_checkpoint_and_says_how_it_was_made(finished_run: TrainConfig) -> None:
    report = json.loads((finished_run.run / "run.json").read_text())
    assert {"head", "seed 0", "head again"} == set(report["stages"])
    assert report["split"] == load_prepared(finished_run.prepared)[2]["digest"]
    assert from_values(report["config"]) == finished_run
    assert load_release(finished_run.run / CHECKPOINT).labels == finished_run.labels


def test_evaluate_reports_every_part_and_both_baselines(finished_run: TrainConfig) -> None:
    report = json.loads((finished_run.run / "evaluation.json").read_text())
    assert {"artist-disjoint", "source-disjoint", "all"} <= set(report["model"])
    assert set(report["baselines"]) == {"majority class", "original recipe"}
    assert report["strangers"].keys() == {"no artworks", "other cultures"}
    plots = ("confusion", "reliability", "coverage", "mistakes")
    assert all((finished_run.run / f"{name}.png").stat().st_size > 1000 for name in plots)
    assert "| artist-disjoint |" in (finished_run.run / "report.md").read_text()


@pytest.fixture(scope="module")
def published(finished_run: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("published")
    release(finished_run.run.with_name("final"), out)
    return out


@pytest.fixture(scope="module")
def exported(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_release(published, tmp_path_factory.mktemp("models"))


def test_release_is_trained_on_everything_and_says_so(published: Path, finished_run: TrainConfig) -> None:
    card = (published / "README.md").read_text()
    assert "all labelled pictures" in card
    assert load_release(published).facts["trained_on"] == 36
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


def test_exported_signatures_are_the_contract(exported: Path) -> None:
    assert signature_problems(tf.saved_model.load(str(exported))) == []


def test_exported_model_answers_as_the_run_did(exported: Path, finished_run: TrainConfig) -> None:
    _, pixels, _ = load_prepared(finished_run.prepared)
    answers = load_answers(finished_run.run)
    found = ask_saved_model(exported, pixels, answers.rows, finished_run.labels)
    assert found.shape == (len(answers.rows), 3)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)


def test_exported_heat_maps_sum_to_the_logits(exported: Path) -> None:
    explain = tf.saved_model.load(str(exported)).signatures[contract.EXPLAIN]
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    answer = {name: value.numpy() for name, value in explain(images=tf.constant(images)).items()}
    logits = answer[contract.HEATMAPS].sum((1, 2))
    ratios = np.log(answer[contract.PROBABILITIES])
    differences = (logits - logits[:, :1]) - (ratios - ratios[:, :1]) * (logits[:, 1:2] - logits[:, :1]) / (
        ratios[:, 1:2] - ratios[:, :1]
    )
    np.testing.assert_allclose(differences, 0, atol=1e-2)  # probabilities are the softmax of logits / temperature


def test_export_never_overwrites_a_version(tmp_path: Path) -> None:
    target = tmp_path / "culture" / "3"
    target.mkdir(parents=True)
    with pytest.raises(ExportError, match="never overwritten"):
        write_servable(build_tiny_model(2), ("A", "B"), target)


def test_export_killed_in_the_middle_leaves_no_version(tmp_path: Path) -> None:
    code = (
        "import os, sys, tensorflow as tf\n"
        "from pathlib import Path\n"
        "from training import export\n"
        "from training.model import build_tiny_model\n"
        "save = tf.saved_model.save\n"
        "export.tf.saved_model.save = lambda *a, **k: (save(*a, **k), os._exit(9))\n"  # as a kill: no clean-up runs
        "export.write_servable(build_tiny_model(2), ('A', 'B'), Path(sys.argv[1], 'culture', '1'))\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, check=False)
    assert killed.returncode == 9, killed.stderr[-500:]
    assert list((tmp_path / "culture").iterdir()) == []


def test_export_that_answers_differently_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="differ from the checkpoint"):
        write_servable(
            build_tiny_model(2), ("A", "B"), tmp_path / "culture" / "1", reference=build_tiny_model(2, seed=5)
        )
    assert list((tmp_path / "culture").iterdir()) == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("epoch = 3", "unknown settings: epoch"),
        ('labels = ["B", "A"]', "alphabetical"),
        ("views = 0", "at least one"),
        ("data =", "Invalid"),
    ],
)
def test_config_says_what_is_wrong(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f'data = "pictures"\n{line}\n' if not line.startswith("data") else line)
    with pytest.raises(ValueError, match=complaint):
        load_config(path)


def test_config_survives_being_written_down(tiny_config: TrainConfig) -> None:
    final = replace(tiny_config, measured_by=tiny_config.run)
    assert from_values(json.loads(json.dumps(to_values(final)))) == final
