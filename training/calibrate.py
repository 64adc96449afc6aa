"""What turns logits into an honest answer: how each picture's temperature comes about, and the two thresholds."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from training.checkpoint import TEMPERATURES, Calibration
from training.metrics import Floats, Ints, coverage_at, log_softmax, losses, nll

# How steep a temperature's logarithm may be expected to be, per deviation of the margin, before any picture is seen: so
# that a handful of them cannot choose a steep slope.
SLOPE: Final = 0.5
HONEST: Final = "artist- and source-disjoint"  # the pictures that an abstention threshold is chosen on
ALL: Final = "all validation"  # or these, where no artist and no source is held out


def temperature_of(logits: Floats, truth: Ints) -> float:
    """The one number that makes the validation NLL least when logits are divided by it (Guo et al. 2017)."""

    def loss(temperature: float) -> float:
        return nll(np.exp(log_softmax(logits / temperature)), truth)

    return float(minimize_scalar(loss, bounds=TEMPERATURES, method="bounded").x)


def temperatures_of(logits: Floats, truth: Ints, weights: Floats) -> Calibration:
    """The temperature, and how it depends on the margin, that make the NLL least.

    `weights` [N] says how much each picture counts: a book with many pictures is one look all the same, and where each
    picture counts alike, a few books choose the numbers.
    """
    first = np.sort(logits, axis=1)[:, -2:]
    margin = (first[:, 1] - first[:, 0]).astype(np.float64)
    middle, unit = margin.mean(), margin.std() + 1e-9
    share = weights / weights.sum()

    def calibration(found: Floats) -> Calibration:
        slope = found[1] / unit
        return Calibration(float(np.exp(found[0] - slope * middle)), float(slope))

    def loss(found: Floats) -> float:
        lost = losses(probabilities(calibration(found), logits), truth)
        return float(lost @ share + found[1] ** 2 / (2 * SLOPE**2 * len(truth)))

    start = np.array([np.log(temperature_of(logits, truth)), 0.0])
    return calibration(minimize(loss, start, method="Nelder-Mead").x)


def probabilities(calibration: Calibration, logits: Floats) -> Floats:
    """As the servable computes them, [N, C]."""
    return np.asarray(calibration.probabilities(logits))


def energy(logits: Floats) -> Floats:
    """A score of strangeness that reads the logits alone, [N] (Liu et al. 2020): measured, not served."""
    top = logits.max(1)
    result: Floats = -(top + np.log(np.exp(logits - top[:, None]).sum(1)))
    return result


def calibrate(
    logits: Floats,
    truth: Ints,
    strangeness: Floats,
    weights: Floats,
    *,
    honest: Sequence[bool],
    target_accuracy: float,
    known_share: float,
) -> tuple[Calibration, dict[str, Any]]:
    """Temperatures and ood threshold from all validation answers, the abstention threshold from the `honest` ones.

    `strangeness` is the network's ood_score, of which `known_share` must stay accepted; `weights` are for the
    temperatures alone. The dict says what came of it.

    Honest are the pictures of artists and sources that training does not know: what a stranger's picture is like. Where
    there is none, as no artist and no source is named, all pictures stand for them, and promise too much.
    """
    found = temperatures_of(logits, truth, weights)
    known = probabilities(found, logits)
    pictures, mask = HONEST, np.asarray(honest, bool)
    if not mask.any():
        pictures, mask = ALL, np.ones(len(truth), bool)
    coverage, least = coverage_at(known[mask], truth[mask], target_accuracy)
    reached = target_accuracy
    if coverage == 0.0:  # the best that can be had: the most accurate answers that are not a handful
        least = float(np.quantile(known[mask].max(1), 0.9))
        sure = known[mask].max(1) >= least
        coverage, reached = float(sure.mean()), float((known[mask].argmax(1) == truth[mask])[sure].mean())
    greatest = float(np.quantile(strangeness, known_share))
    thresholds = {"least_probability": least, "greatest_ood": greatest}
    return replace(found, **thresholds), {"coverage": coverage, "accuracy": reached, "pictures": pictures}


def cross_calibrated(logits: Floats, truth: Ints, weights: Floats, halves: Sequence[int]) -> Floats:
    """Probabilities whose temperatures were found on the other half of the pictures: what a report may quote."""
    half = np.asarray(halves)
    answers = np.empty_like(logits)
    for side in (0, 1):
        there, here = half != side, half == side
        found = temperatures_of(logits[there], truth[there], weights[there]) if there.any() else Calibration()
        answers[here] = probabilities(found, logits[here])
    return answers
