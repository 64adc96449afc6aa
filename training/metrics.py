"""Numbers about probabilities and truth. numpy only; every function takes probabilities [N, C] and truth int [N]."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

Z95: Final = 1.959964  # two-sided 95 % of the normal distribution
BINS: Final = 15  # of the reliability diagram (Guo et al. 2017)


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    if count == 0:
        return 0.0, 1.0
    share, spread = right / count, Z95**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * np.sqrt(share * (1 - share) / count + spread / (4 * count))
    return float(middle - half), float(middle + half)


def log_softmax(logits: Floats) -> Floats:
    """Row-wise, without overflow."""
    shifted = logits - logits.max(1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def nll(probabilities: Floats, truth: Ints) -> float:
    """Mean negative log likelihood, in nats."""
    return float(-np.log(probabilities[np.arange(len(truth)), truth].clip(1e-12)).mean())


def brier(probabilities: Floats, truth: Ints) -> float:
    """Mean squared distance from the truth, summed over classes."""
    return float(((probabilities - np.eye(probabilities.shape[1])[truth]) ** 2).sum(1).mean())


def reliability(probabilities: Floats, truth: Ints) -> list[dict[str, float]]:
    """Per bin of the top probability: its bounds, how many answers, their mean probability and accuracy."""
    top, right = probabilities.max(1), probabilities.argmax(1) == truth
    bins = np.minimum((top * BINS).astype(int), BINS - 1)
    return [
        {
            "from": b / BINS,
            "to": (b + 1) / BINS,
            "count": int((bins == b).sum()),
            "confidence": float(top[bins == b].mean()),
            "accuracy": float(right[bins == b].mean()),
        }
        for b in range(BINS)
        if (bins == b).any()
    ]


def calibration_error(probabilities: Floats, truth: Ints) -> float:
    """Expected calibration error of the top probability."""
    rows = reliability(probabilities, truth)
    return sum(row["count"] * abs(row["confidence"] - row["accuracy"]) for row in rows) / max(1, len(truth))


def risk_coverage(probabilities: Floats, truth: Ints) -> tuple[Floats, Floats]:
    """Coverage and accuracy of the most confident answers, from one answer to all of them."""
    order = np.argsort(-probabilities.max(1), kind="stable")
    right = (probabilities.argmax(1) == truth)[order]
    counts = np.arange(1, len(truth) + 1)
    return counts / max(1, len(truth)), np.cumsum(right) / counts


def coverage_at(probabilities: Floats, truth: Ints, accuracy: float) -> tuple[float, float]:
    """The greatest share of answers that is right at least `accuracy` of the time, and its least top probability.

    (0, 1) when no share is. Ties in probability are not split.
    """
    coverage, reached = risk_coverage(probabilities, truth)
    tops = np.sort(probabilities.max(1))[::-1]
    last_of_tie = np.append(tops[1:] < tops[:-1], True)
    good = np.flatnonzero((reached >= accuracy) & last_of_tie)
    return (float(coverage[good[-1]]), float(tops[good[-1]])) if len(good) else (0.0, 1.0)


def confusion(probabilities: Floats, truth: Ints) -> NDArray[np.int64]:
    """Counts [C, C]: rows are the truth, columns the answer."""
    classes = probabilities.shape[1]
    pairs = truth * classes + probabilities.argmax(1)
    counts: NDArray[np.int64] = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return counts


def summary(probabilities: Floats, truth: Ints, *, target_accuracy: float = 0.9) -> dict[str, Any]:
    """Everything that a report says about one set of answers."""
    counts = confusion(probabilities, truth)
    right, of_class, answered = counts.diagonal(), counts.sum(1), counts.sum(0)
    present = of_class > 0
    recall = right / np.maximum(of_class, 1)
    f1 = 2 * right / np.maximum(of_class + answered, 1)
    second = np.sort(probabilities, axis=1)[:, -2]
    return {
        "count": len(truth),
        "accuracy": float(right.sum() / max(1, len(truth))),
        "accuracy_interval": wilson(int(right.sum()), len(truth)),
        "balanced_accuracy": float(recall[present].mean()),
        "macro_f1": float(f1[present].mean()),
        "top2": float((probabilities[np.arange(len(truth)), truth] >= second).mean()),
        "nll": nll(probabilities, truth),
        "nll_interval": _nll_interval(probabilities, truth),
        "brier": brier(probabilities, truth),
        "ece": calibration_error(probabilities, truth),
        "coverage": coverage_at(probabilities, truth, target_accuracy)[0],
    }


def _nll_interval(probabilities: Floats, truth: Ints) -> tuple[float, float]:
    losses = -np.log(probabilities[np.arange(len(truth)), truth].clip(1e-12))
    half = Z95 * losses.std() / np.sqrt(max(1, len(losses)))
    return float(losses.mean() - half), float(losses.mean() + half)


def per_class(probabilities: Floats, truth: Ints, labels: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Per label: pictures, recall with its interval, precision."""
    counts = confusion(probabilities, truth)
    return {
        label: {
            "count": int(counts[c].sum()),
            "recall": float(counts[c, c] / max(1, counts[c].sum())),
            "recall_interval": wilson(int(counts[c, c]), int(counts[c].sum())),
            "precision": float(counts[c, c] / max(1, counts[:, c].sum())),
        }
        for c, label in enumerate(labels)
    }
