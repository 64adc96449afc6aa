"""One run of the whole pipeline on drawn pictures, and what it leaves behind."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from serving import contract
from training.__main__ import main
from training.calibrate import probabilities
from training.checkpoint import build_release_model, load_release
from training.config import TrainConfig, from_values, load_config, to_values
from training.data import Examples, FreshViews
from training.evaluate import ask_saved_model, evaluate
from training.export import ExportError, export_release, signature_problems, write_servable
from training.fit import CHECKPOINT, fit, load_answers, recipe_of, solve_head
from training.layers import LOGITS
from training.model import build_model, build_tiny_model
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
    best = min(report["stages"], key=lambda name: report["stages"][name]["nll"])
    assert report["recipe"] == [{"config": report["config"], "stage": best}] == recipe_of(finished_run.run)
    assert load_release(finished_run.run / CHECKPOINT).labels == finished_run.labels


def test_evaluate_reports_every_part_and_both_baselines(finished_run: TrainConfig) -> None:
    report = json.loads((finished_run.run / "evaluation.json").read_text())
    assert {"artist-disjoint", "source-disjoint", "all"} <= set(report["model"])
    assert set(report["baselines"]) == {"majority class", "original recipe"}
    assert report["strangers"].keys() == {"drawn, no artworks", "photographs", "other cultures"}
    assert {row["intervals"] for row in report["model"].values()} <= {"groups", "pictures"}
    assert report["model"]["all"]["groups"] > 1
    plots = ("confusion", "reliability", "coverage", "mistakes")
    assert all((finished_run.run / f"{name}.png").stat().st_size > 1000 for name in plots)
    text = (finished_run.run / "report.md").read_text()
    assert all(line in text for line in ("| artist-disjoint |", "| photographs |", "draws whole groups"))


@pytest.fixture(scope="module")
def fresh_run(finished_run: TrainConfig) -> TrainConfig:
    """The same pictures, but fine-tuned from block 4 on, on new pixels in every batch, and views that are examples."""
    config = replace(finished_run, run=finished_run.run.with_name("fresh"), cut=4, fresh=True, batch=2,
                     averaging=0.5, group_penalty=0.0, consistency=0.0)  # fmt: skip
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


def test_recipe_of_a_run_begins_with_the_run_that_it_starts_from(
    halfway_run: TrainConfig, fresh_run: TrainConfig, tmp_path: Path
) -> None:
    first, second = recipe_of(halfway_run.run)
    assert [first] == recipe_of(fresh_run.run)
    assert from_values(second["config"]) == halfway_run
    older = Path(shutil.copytree(halfway_run.run, tmp_path / "older"))  # of before recipes were written down
    facts = json.loads((older / "run.json").read_text())
    del facts["recipe"]
    (older / "run.json").write_text(json.dumps(facts))
    assert recipe_of(older) == [first, second]


def test_evaluation_says_how_the_other_run_was_made(halfway_run: TrainConfig, fresh_run: TrainConfig) -> None:
    report = evaluate(halfway_run.run, floor=False, against={"halfway's start": fresh_run.run})
    assert report["rivals"] == {"halfway's start": recipe_of(fresh_run.run)}
    assert report["comparisons"].keys() == report["rivals"].keys()


def test_measured_run_is_not_repeated_from_another_start(halfway_run: TrainConfig, finished_run: TrainConfig) -> None:
    again = replace(halfway_run, run=halfway_run.run.with_name("again"), measured_by=halfway_run.run,
                    start=finished_run.run)  # fmt: skip
    with pytest.raises(ValueError, match="was not made as"):
        fit(again)


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
    examples = Examples(FreshViews(fresh_run, records, pixels), [], rows, rows[:0], rows % 3, [], ones, 3)
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
def exported(finished_run: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The measured run itself, as a SavedModel."""
    out = tmp_path_factory.mktemp("measured")
    release(finished_run.run, out)
    return export_release(out, tmp_path_factory.mktemp("models"))


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


def test_exported_signatures_are_the_contract(exported: Path) -> None:
    assert signature_problems(tf.saved_model.load(str(exported))) == []


def test_exported_model_answers_as_the_run_did(exported: Path, finished_run: TrainConfig) -> None:
    _, pixels, _ = load_prepared(finished_run.prepared)
    answers = load_answers(finished_run.run)
    found = ask_saved_model(exported, pixels, answers.rows, finished_run.labels)
    calibration = load_release(finished_run.run / CHECKPOINT).calibration
    expected = probabilities(calibration, answers.logits)
    np.testing.assert_allclose(found, expected, atol=0.01)  # the run read maps that were cached in float16
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.1  # so that not any answers would do


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
        "from training.model import build_model, build_tiny_model\n"
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


def test_help_of_fit_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for words in ("release.toml", "solve the head again", "blocks further", "`kept`"):
        assert words in text


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("epoch = 3", "unknown settings: epoch"),
        ('labels = ["B", "A"]', "alphabetical"),
        ("views = 0", "at least one"),
        ("views = 1\nconsistency = 0.3", "consistency needs views"),
        ("data =", "Invalid"),
    ],
)
def test_config_says_what_is_wrong(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f'data = "pictures"\n{line}\n' if not line.startswith("data") else line)
    with pytest.raises(ValueError, match=complaint):
        load_config(path)


def test_consistency_keeps_the_answer_when_a_view_changes(tiny_config: TrainConfig) -> None:
    rng, count = np.random.default_rng(0), 60
    pictures = rng.normal(size=(count, tiny_config.shape.features)).astype(np.float32)
    rows, truth = np.arange(count), np.arange(count) % 3
    pictures[:, 0] += truth * 3  # tells the classes apart, but not in every view
    pictures[:, 1] += truth * 2
    view = pictures.copy()
    view[:, 0] = rng.permutation(view[:, 0])
    groups, weights = ["one"] * count, np.ones(count)
    examples = Examples(FreshViews(tiny_config, [], pictures), [], rows, rows, truth, groups, weights, 3)

    def reliance(**changes: float) -> float:
        model = build_model(tiny_config.shape)
        solve_head(replace(tiny_config, **changes), model, [pictures, view], examples)
        kernel = np.asarray(model.get_layer("head").kernel)
        return float(np.ptp(kernel[0]) / np.ptp(kernel[1]))

    assert reliance(consistency=1.0) < reliance(consistency=0.0) / 2


def test_config_survives_being_written_down(tiny_config: TrainConfig) -> None:
    final = replace(tiny_config, measured_by=tiny_config.run)
    assert from_values(json.loads(json.dumps(to_values(final)))) == final
