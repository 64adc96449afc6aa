"""A run that goes on from another one's network, and what it keeps of it."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.checkpoint import build_release_model, load_release
from training.config import TrainConfig, from_values
from training.evaluate import evaluate
from training.fit import fit
from training.layers import LOGITS
from training.prepare import load_prepared
from training.runs import CHECKPOINT, load_answers, recipe_of

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]  # TensorFlow and Keras warn about themselves


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
