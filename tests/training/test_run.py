"""One run of the whole pipeline on drawn pictures, and what it leaves behind."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.contract import OOD_SCORE
from training.checkpoint import build_release_model, load_release
from training.config import TrainConfig, from_values
from training.data import Examples, FreshViews
from training.fit import fit
from training.layers import LOGITS
from training.prepare import load_prepared, prepare
from training.records import ARTIST, OTHER, SHOWN, TRAIN
from training.runs import CHECKPOINT, load_answers, recipe_of

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]  # TensorFlow and Keras warn about themselves


def test_prepare_writes_pixels_a_split_and_what_leaks(finished_run: TrainConfig) -> None:
    records, pixels, split = load_prepared(finished_run.prepared)
    assert pixels.shape == (44, 224, 224, 3)
    assert {record.part for record in records} >= {TRAIN, ARTIST, SHOWN, OTHER}
    assert set(split["leaks"]) <= {"random", "artist", "source"}
    strange = [record.culture not in finished_run.labels for record in records]
    assert strange == sorted(strange) == [record.part in (SHOWN, OTHER) for record in records]


def test_fit_leaves_a_checkpoint_and_says_how_it_was_made(finished_run: TrainConfig) -> None:
    report = json.loads((finished_run.run / "run.json").read_text())
    assert {"head", "seed 0"} == set(report["stages"])
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


def test_fresh_run_answers_with_the_weights_that_it_wrote(fresh_run: TrainConfig) -> None:
    _, pixels, _ = load_prepared(fresh_run.prepared)
    answers = load_answers(fresh_run.run)
    model = build_release_model(load_release(fresh_run.run / CHECKPOINT))
    found = model.predict(pixels[answers.rows].astype(np.float32), verbose=0)[LOGITS]
    np.testing.assert_allclose(found, answers.logits, rtol=0.02, atol=0.02)


def test_run_that_learns_strangers_tells_those_that_it_was_shown(fresh_run: TrainConfig) -> None:
    records, pixels, _ = load_prepared(fresh_run.prepared)
    model = build_release_model(load_release(fresh_run.run / CHECKPOINT))

    def scores(part: str) -> np.ndarray:
        rows = np.flatnonzero([record.part == part for record in records])
        return model.predict(pixels[rows].astype(np.float32), verbose=0)[OOD_SCORE]

    assert scores(SHOWN).min() > 0.5
    assert np.median(scores(TRAIN)) < 0.5


def test_strangers_cannot_be_learnt_where_none_is_shown(finished_run: TrainConfig, tmp_path: Path) -> None:
    config = replace(finished_run, prepared=tmp_path, outside=True, shown_share=0.0)
    prepare(config)
    with pytest.raises(ValueError, match="shows no pictures of other cultures"):
        fit(config)


def test_fresh_run_changes_the_blocks_from_the_cut_on(fresh_run: TrainConfig, finished_run: TrainConfig) -> None:
    with np.load(fresh_run.run / "seed_0/tuned.npz") as fresh, np.load(finished_run.run / "seed_0/tuned.npz") as cached:
        blocks = [name for name in fresh.files if name.startswith("block")]
        changed = {name.split("_")[0] for name in blocks if not np.array_equal(fresh[name], cached[name])}
        assert changed == {"block4", "block5"}


def test_pictures_are_drawn_the_same_way_again(fresh_run: TrainConfig) -> None:
    records, pixels, _ = load_prepared(fresh_run.prepared)
    rows, ones = np.arange(20), np.ones(20)
    examples = Examples(FreshViews(fresh_run, records, pixels), [], rows, rows[:0], rows % 3, ones, 3)
    first, second, other = ([*examples.drawn(batch=4, steps=3, seed=0, epoch=epoch)] for epoch in (0, 0, 1))
    for (inputs, truth), (inputs_again, truth_again) in zip(first, second, strict=True):
        np.testing.assert_array_equal(inputs, inputs_again)
        np.testing.assert_array_equal(truth, truth_again)
    assert not any(np.array_equal(one[0], two[0]) for one, two in zip(first, other, strict=True))
