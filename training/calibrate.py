"""What turns logits into an honest answer: a temperature, and the two thresholds."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from scipy.optimize import minimize_scalar

from training.checkpoint import Calibration
from training.metrics import Floats, Ints, coverage_at, log_softmax, nll

TEMPERATURES: Final = (0.2, 8.0)  # searched between


def temperature_of(logits: Floats, truth: Ints) -> float:
    """The one number that makes the validation NLL least when logits are divided by it (Guo et al. 2017)."""
    found = minimize_scalar(
        lambda t: nll(np.exp(log_softmax(logits / t)), truth), bounds=TEMPERATURES, method="bounded"
    )
    return float(found.x)


def probabilities(logits: Floats, temperature: float) -> Floats:
    """As the servable computes them."""
    result: Floats = np.exp(log_softmax(logits / temperature))
    return result


def energy(logits: Floats, temperature: float) -> Floats:
    """A score of strangeness that reads the logits alone, [N] (Liu et al. 2020): measured, not served."""
    scaled = logits / temperature
    top = scaled.max(1)
    result: Floats = -(top + np.log(np.exp(scaled - top[:, None]).sum(1)))
    return result


def calibrate(
    logits: Floats,
    truth: Ints,
    strangeness: Floats,
    *,
    honest: Sequence[bool],
    target_accuracy: float,
    known_share: float,
) -> tuple[Calibration, dict[str, Any]]:
    """Temperature and ood threshold from all validation answers, the abstention threshold from the `honest` ones.

    `strangeness` is the network's ood_score, of which `known_share` must stay accepted. The dict says what came of it.

    Honest are the pictures of artists and sources that training does not know: what a stranger's picture is like.
    """
    temperature = temperature_of(logits, truth)
    known = probabilities(logits, temperature)
    mask = np.asarray(honest)
    coverage, least = coverage_at(known[mask], truth[mask], target_accuracy)
    reached = target_accuracy
    if coverage == 0.0:  # the best that can be had: the most accurate answers that are not a handful
        least = float(np.quantile(known[mask].max(1), 0.9))
        sure = known[mask].max(1) >= least
        coverage, reached = float(sure.mean()), float((known[mask].argmax(1) == truth[mask])[sure].mean())
    greatest = float(np.quantile(strangeness, known_share))
    return Calibration(temperature, least, greatest), {"coverage": coverage, "accuracy": reached}


def cross_calibrated(logits: Floats, truth: Ints, halves: Sequence[int]) -> Floats:
    """Probabilities whose temperature was found on the other half of the pictures: what a report may quote."""
    half = np.asarray(halves)
    answers = np.empty_like(logits)
    for side in (0, 1):
        there, here = half != side, half == side
        answers[here] = probabilities(logits[here], temperature_of(logits[there], truth[there]) if there.any() else 1.0)
    return answers
