import numpy as np
import pytest

pytest.importorskip("scipy")

from training.calibrate import calibrate, cross_calibrated, temperature_of
from training.head import picture_weights, solve, standardise
from training.metrics import calibration_error, coverage_at, log_softmax, nll, summary, wilson


@pytest.fixture
def logits() -> tuple[np.ndarray, np.ndarray]:
    """Answers that are three times as sure as they should be."""
    rng = np.random.default_rng(0)
    true = rng.normal(size=(4000, 4)) * 2
    truth = (np.exp(log_softmax(true)).cumsum(1) > rng.random((4000, 1))).argmax(1)
    return true * 3, truth


def test_wilson_is_the_textbook_interval() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)  # Agresti and Coull 1998
    assert wilson(0, 0) == (0.0, 1.0)


def test_temperature_finds_how_much_too_sure_the_logits_are(logits: tuple[np.ndarray, np.ndarray]) -> None:
    assert temperature_of(*logits) == pytest.approx(3, rel=0.1)


def test_calibrated_answers_are_calibrated(logits: tuple[np.ndarray, np.ndarray]) -> None:
    answers, truth = logits
    known = cross_calibrated(answers, truth, np.arange(len(truth)) % 2)
    assert calibration_error(known, truth) < 0.03 < calibration_error(np.exp(log_softmax(answers)), truth)


def test_threshold_reaches_its_target(logits: tuple[np.ndarray, np.ndarray]) -> None:
    answers, truth = logits
    strangeness = np.arange(len(truth)) / len(truth)
    everyone = [True] * len(truth)
    found, reached = calibrate(answers, truth, strangeness, honest=everyone, target_accuracy=0.9, known_share=0.98)
    assert found.greatest_ood == pytest.approx(0.98, abs=1e-3)
    known = np.exp(log_softmax(answers / found.temperature))
    sure = known.max(1) >= found.least_probability
    assert (known.argmax(1) == truth)[sure].mean() >= 0.9
    assert reached["coverage"] == pytest.approx(sure.mean())


def test_coverage_is_none_where_nothing_is_accurate_enough() -> None:
    assert coverage_at(np.array([[0.9, 0.1]] * 3), np.array([1, 1, 1]), 0.9) == (0.0, 1.0)


def test_summary_of_perfect_answers() -> None:
    row = summary(np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0]))
    assert (row["accuracy"], row["macro_f1"], row["top2"], row["coverage"]) == (1, 1, 1, 1)
    assert row["nll"] == pytest.approx(0)
    assert row["brier"] == 0


def test_solve_separates_what_is_separable() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 50)
    features = rng.normal(size=(100, 5)).astype(np.float32) + truth[:, None] * 3
    shift, scale = standardise(features)
    weights = picture_weights(truth, ["a"] * 100, group_weight=0)
    kernel, bias = solve((features - shift) * scale, truth, weights, classes=2, weight_decay=0.01, smoothing=0)
    assert nll(np.exp(log_softmax((features - shift) * scale @ kernel + bias)), truth) < 0.1


def test_picture_weights_even_out_classes_and_artists() -> None:
    weights = picture_weights(np.array([0, 0, 0, 1]), ["many", "many", "one", "other"], group_weight=1.0)
    np.testing.assert_allclose(weights, [0.125, 0.125, 0.25, 0.5])
