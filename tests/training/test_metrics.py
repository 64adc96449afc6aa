import numpy as np
import pytest

pytest.importorskip("scipy")

from training.calibrate import ALL, HONEST, calibrate, cross_calibrated, probabilities, temperature_of, temperatures_of
from training.metrics import (
    GROUPS,
    PICTURES,
    calibration_error,
    coverage_at,
    evened_out,
    log_softmax,
    nll,
    paired_difference,
    per_class,
    summary,
    wilson,
)


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


def test_intervals_do_not_leave_what_is_possible() -> None:
    row = summary(np.array([[0.999, 0.001]] * 9 + [[0.4, 0.6]]), np.zeros(10, int))
    assert row["nll_interval"][0] == 0
    assert all(f"{low:.2f}" == "0.00" for low, _ in (wilson(0, n) for n in range(1, 200)))
    assert all(high <= 1 for _, high in (wilson(n, n) for n in range(1, 200)))
    assert str(summary(np.eye(3), np.arange(3))["nll"]) == "0.0"


@pytest.fixture
def paired() -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Answers, worse ones, truth, and groups of ten pictures each."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 600)
    better = rng.normal(size=(600, 3)) + 2 * np.eye(3)[truth]
    worse = better - 0.7 * np.eye(3)[truth]
    return np.exp(log_softmax(better)), np.exp(log_softmax(worse)), truth, [f"artist {i // 10}" for i in range(600)]


def test_paired_difference_is_that_of_the_two_means(
    paired: tuple[np.ndarray, np.ndarray, np.ndarray, list[str]],
) -> None:
    better, worse, truth, groups = paired
    row = paired_difference(better, worse, truth, groups)
    before, after = summary(worse, truth), summary(better, truth)
    assert row["accuracy"] == pytest.approx(after["accuracy"] - before["accuracy"])
    assert row["nll"] == pytest.approx(after["nll"] - before["nll"])
    for name in ("accuracy", "nll"):
        low, high = row[f"{name}_interval"]
        assert low < row[name] < high
        assert low > 0 or high < 0


def test_paired_difference_sees_that_pictures_of_a_group_go_together(
    paired: tuple[np.ndarray, np.ndarray, np.ndarray, list[str]],
) -> None:
    better, worse, truth, _ = paired
    twins = [np.repeat(values, 4, axis=0) for values in (better, worse, truth)]
    told_apart = paired_difference(*twins, [str(i) for i in range(2400)])["nll_interval"]
    together = paired_difference(*twins, [str(i // 4) for i in range(2400)])["nll_interval"]
    assert np.ptp(together) == pytest.approx(2 * np.ptp(told_apart), rel=0.1)


def test_intervals_of_a_summary_draw_whole_groups(paired: tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]) -> None:
    better, _, truth, _ = paired
    twins = [np.repeat(values, 4, axis=0) for values in (better, truth)]
    groups = [str(i // 4) for i in range(2400)]
    alone, together = summary(*twins), summary(*twins, groups)
    assert (alone["intervals"], together["intervals"], together["groups"]) == (PICTURES, GROUPS, 600)
    assert alone["accuracy_interval"] == wilson(round(alone["accuracy"] * 2400), 2400)
    for name in ("accuracy", "nll"):
        assert alone[name] == together[name]
        interval = together[f"{name}_interval"]
        assert np.ptp(interval) == pytest.approx(2 * np.ptp(alone[f"{name}_interval"]), rel=0.1)
        assert interval[0] < together[name] < interval[1]
    assert summary(*twins, groups) == together  # drawn the same way every time
    told_apart = summary(*twins, [str(i) for i in range(2400)])
    assert np.ptp(told_apart["nll_interval"]) == pytest.approx(np.ptp(alone["nll_interval"]), rel=0.1)


def test_groups_that_happen_to_agree_do_not_make_an_interval_narrow() -> None:
    answers, truth = np.array([[0.8, 0.2]] * 6), np.zeros(6, int)
    row = summary(answers, truth, ["a", "a", "b", "b", "c", "c"])
    assert row["accuracy_interval"] == wilson(6, 6)
    assert summary(answers, truth, ["a"] * 6)["intervals"] == PICTURES  # nothing can be drawn from one


def test_recalls_of_classes_have_intervals_by_group_too(
    paired: tuple[np.ndarray, np.ndarray, np.ndarray, list[str]],
) -> None:
    better, _, truth, groups = paired
    rows = per_class(better, truth, ("A", "B", "C"), groups)
    assert {row["intervals"] for row in rows.values()} == {GROUPS}
    assert rows["A"]["groups"] == len({groups[i] for i in np.flatnonzero(truth == 0)})
    assert rows["A"]["recall"] == pytest.approx((better[truth == 0].argmax(1) == 0).mean())
    assert per_class(better, truth, ("A", "B", "C"))["A"]["intervals"] == PICTURES
    assert per_class(better, truth.clip(1), ("A", "B", "C"), groups)["A"]["recall_interval"] == (0.0, 1.0)


def test_temperature_finds_how_much_too_sure_the_logits_are(logits: tuple[np.ndarray, np.ndarray]) -> None:
    assert temperature_of(*logits) == pytest.approx(3, rel=0.1)


def test_calibrated_answers_are_calibrated(logits: tuple[np.ndarray, np.ndarray]) -> None:
    answers, truth = logits
    known = cross_calibrated(answers, truth, np.ones(len(truth)), np.arange(len(truth)) % 2)
    assert calibration_error(known, truth) < 0.03 < calibration_error(np.exp(log_softmax(answers)), truth)


def test_sure_pictures_get_a_higher_temperature_where_they_are_the_ones_too_sure(
    logits: tuple[np.ndarray, np.ndarray],
) -> None:
    answers, truth = logits
    first = np.sort(answers, axis=1)
    margin = first[:, -1] - first[:, -2]
    surer = answers * (1 + margin / margin.mean())[:, None]  # the farther ahead, the more too sure
    found = temperatures_of(surer, truth, np.ones(len(truth)))
    assert found.margin_weight > 0
    known = probabilities(found, surer)
    assert nll(known, truth) < nll(np.exp(log_softmax(surer / temperature_of(surer, truth))), truth) - 0.005
    assert (known.argmax(1) == answers.argmax(1)).all()


def test_a_book_with_many_pictures_does_not_choose_everyones_temperature(logits: tuple[np.ndarray, np.ndarray]) -> None:
    answers, truth = logits
    book = np.arange(len(truth)) < len(truth) // 2  # whose pictures are not known; the others are of one artist each
    shuffled = np.where(book, (truth + 1) % answers.shape[1], truth)
    groups = ["book" if one else str(i) for i, one in enumerate(book)]
    found = [temperatures_of(answers, shuffled, evened_out(groups, weight)) for weight in (0, 0.3, 1)]
    alone = temperatures_of(answers[~book], truth[~book], np.ones((~book).sum())).temperature
    plain, some, evened = (each.temperature for each in found)
    assert plain > some > evened == pytest.approx(alone, rel=0.05)


def test_threshold_reaches_its_target(logits: tuple[np.ndarray, np.ndarray]) -> None:
    answers, truth = logits
    strangeness = np.arange(len(truth)) / len(truth)
    everyone = [True] * len(truth)
    wanted = {"target_accuracy": 0.9, "known_share": 0.98}
    found, reached = calibrate(answers, truth, strangeness, np.ones(len(truth)), honest=everyone, **wanted)
    assert found.greatest_ood == pytest.approx(0.98, abs=1e-3)
    known = probabilities(found, answers)
    sure = known.max(1) >= found.least_probability
    assert (known.argmax(1) == truth)[sure].mean() >= 0.9
    assert reached["coverage"] == pytest.approx(sure.mean())
    assert reached["pictures"] == HONEST


def test_threshold_is_chosen_on_all_pictures_where_none_is_honest(logits: tuple[np.ndarray, np.ndarray]) -> None:
    answers, truth = logits
    strangeness = np.arange(len(truth)) / len(truth)
    wanted = {"target_accuracy": 0.9, "known_share": 0.98}
    nobody, everyone = ([value] * len(truth) for value in (False, True))
    alike = np.ones(len(truth))
    found, reached = calibrate(answers, truth, strangeness, alike, honest=nobody, **wanted)
    assert reached["pictures"] == ALL
    assert found == calibrate(answers, truth, strangeness, alike, honest=everyone, **wanted)[0]


def test_coverage_is_none_where_nothing_is_accurate_enough() -> None:
    assert coverage_at(np.array([[0.9, 0.1]] * 3), np.array([1, 1, 1]), 0.9) == (0.0, 1.0)


def test_summary_of_perfect_answers() -> None:
    row = summary(np.eye(3)[[0, 1, 2, 0]], np.array([0, 1, 2, 0]))
    assert (row["accuracy"], row["macro_f1"], row["top2"], row["coverage"]) == (1, 1, 1, 1)
    assert row["nll"] == pytest.approx(0)
    assert row["brier"] == 0
