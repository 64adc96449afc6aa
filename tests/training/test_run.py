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
from training.checkpoint import build_release_model, load_release
from training.config import TrainConfig, from_values, load_config, to_values
from training.data import Examples, FreshViews
from training.evaluate import ask_saved_model
from training.export import ExportError, export_release, signature_problems, write_servable
from training.fit import CHECKPOINT, fit, load_answers
from training.layers import LOGITS
from training.model import build_tiny_model
from training.prepare import load_prepared
from training.records import ARTIST, OTHER, TRAIN, VALIDATION
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
def fresh_run(finished_run: TrainConfig) -> TrainConfig:
    """The same pictures, but fine-tuned from block 4 on, on new pixels in every batch."""
    config = replace(finished_run, run=finished_run.run.with_name("fresh"), cut=4, fresh=True, batch=2,
                     averaging=0.5)  # fmt: skip
    fit(config)
    return config


def test_fresh_run_answers_with_the_weights_that_it_wrote(fresh_run: TrainConfig) -> None:
    _, pixels, _ = load_prepared(fresh_run.prepared)
    answers = load_answers(fresh_run.run)
    model = build_release_model(load_release(fresh_run.run / CHECKPOINT))
    found = model.predict(pixels[answers.rows].astype(np.float32), verbose=0)[LOGITS]
    np.testing.assert_allclose(found, answers.logits, rtol=0.02, atol=0.02)


def test_fresh_run_changes_the_blocks_from_the_cut_on(fresh_run: TrainConfig, finished_run: TrainConfig) -> None:
    with np.load(fresh_run.run / "seed_0/tuned.npz") as fresh, np.load(finished_run.run / "seed_0/tuned.npz") as cached:
        changed = {name.split("_")[0] for name in fresh.files if not np.array_equal(fresh[name], cached[name])}
        assert {name for name in changed if name.startswith("block")} == {"block4", "block5"}


@pytest.fixture(scope="module")
def halfway_run(fresh_run: TrainConfig) -> TrainConfig:
    """What `fresh_run` made, fine-tuned further; half of that is kept."""
    config = replace(fresh_run, run=fresh_run.run.with_name("halfway"), start=fresh_run.run, kept=0.5, prior=0.5)
    fit(config)
    return config


def test_run_goes_on_from_another_and_compares_itself_with_it(halfway_run: TrainConfig, fresh_run: TrainConfig) -> None:
    here, before = (json.loads((run / "run.json").read_text())["stages"] for run in (halfway_run.run, fresh_run.run))
    assert here.keys() == {"start", "seed 0"}
    assert here["start"]["nll"] == pytest.approx(min(row["nll"] for row in before.values()), rel=0.02)


def test_weights_that_are_kept_lie_between_the_first_and_the_tuned(
    halfway_run: TrainConfig, fresh_run: TrainConfig
) -> None:
    whole = replace(halfway_run, run=halfway_run.run.with_name("whole"), kept=1.0)
    fit(whole)
    first = load_release(fresh_run.run / CHECKPOINT).weights
    with np.load(halfway_run.run / "seed_0/tuned.npz") as half, np.load(whole.run / "seed_0/tuned.npz") as tuned:
        for name in ("block4_conv1/kernel", "block5_conv3/kernel", "head/kernel"):
            assert not np.array_equal(tuned[name], half[name])
            np.testing.assert_allclose(half[name], (tuned[name] + first[name]) / 2, rtol=1e-3, atol=1e-5)


def test_prior_is_in_the_weights_and_in_the_answers(halfway_run: TrainConfig) -> None:
    assert any(json.loads((halfway_run.run / "run.json").read_text())["prior"])
    _, pixels, _ = load_prepared(halfway_run.prepared)
    answers = load_answers(halfway_run.run)
    model = build_release_model(load_release(halfway_run.run / CHECKPOINT))
    found = model.predict(pixels[answers.rows].astype(np.float32), verbose=0)[LOGITS]
    np.testing.assert_allclose(found, answers.logits, rtol=0.02, atol=0.02)


def test_pictures_are_drawn_the_same_way_again(fresh_run: TrainConfig) -> None:
    records, pixels, _ = load_prepared(fresh_run.prepared)
    rows, ones = np.arange(20), np.ones(20)
    examples = Examples(FreshViews(fresh_run, records, pixels), [], rows, rows[:0], rows % 3, ones, 3)
    first, second, other = ([*examples.drawn(batch=4, steps=3, seed=0, epoch=epoch)] for epoch in (0, 0, 1))
    for (inputs, truth), (inputs_again, truth_again) in zip(first, second, strict=True):
        np.testing.assert_array_equal(inputs, inputs_again)
        np.testing.assert_array_equal(truth, truth_again)
    assert not any(np.array_equal(one[0], two[0]) for one, two in zip(first, other, strict=True))


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
    records = load_prepared(finished_run.prepared)[0]
    labelled = [record for record in records if record.part in (TRAIN, *VALIDATION)]
    assert load_release(published).facts["trained_on"] == len(labelled)
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
