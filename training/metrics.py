"""Numbers about probabilities and truth. numpy only; every function takes probabilities [N, C] and truth int [N]."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

Z95: Final = 1.959964  # two-sided 95 % of the normal distribution
BINS: Final = 15  # of the reliability diagram (Guo et al. 2017)
DRAWS: Final = 10_000  # of the bootstrap


def wilson(right: int, count: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927)."""
    if count == 0:
        return 0.0, 1.0
    share, spread = right / count, Z95**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * np.sqrt(share * (1 - share) / count + spread / (4 * count))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))  # rounding may leave [0, 1] by a hair


def log_softmax(logits: Floats) -> Floats:
    """Row-wise, without overflow."""
    shifted = logits - logits.max(1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def nll(probabilities: Floats, truth: Ints) -> float:
    """Mean negative log likelihood, in nats."""
    return float(losses(probabilities, truth).mean())


def losses(probabilities: Floats, truth: Ints) -> Floats:
    """Negative log likelihood of each answer, [N]; never below zero, so that nothing is printed as -0.00."""
    result: Floats = np.abs(np.log(probabilities[np.arange(len(truth)), truth].clip(1e-12, 1)))
    return result


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
    found = losses(probabilities, truth)
    half = Z95 * found.std() / np.sqrt(max(1, len(found)))
    return max(0.0, float(found.mean() - half)), float(found.mean() + half)


def paired_difference(new: Floats, old: Floats, truth: Ints, groups: Sequence[str]) -> dict[str, Any]:
    """How much more accurate `new` is than `old` on the same pictures, and how much its NLL differs; 95 % intervals.

    The intervals are those of a bootstrap that draws whole groups: pictures of one artist or book are right or wrong
    together, and drawing them one by one would promise too much.
    """
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    gains = (new.argmax(1) == truth).astype(np.float64) - (old.argmax(1) == truth)
    numbers = np.stack([gains, losses(new, truth) - losses(old, truth), np.ones(len(truth))], axis=1)  # [N, 3]
    sums = np.zeros((len(names), 3))
    np.add.at(sums, group, numbers)
    times = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), DRAWS)
    drawn = times @ sums  # [DRAWS, 3]
    low, high = np.quantile(drawn[:, :2] / drawn[:, 2:], (0.025, 0.975), axis=0)
    accuracy, loss = numbers[:, :2].mean(0)
    return {
        "count": len(truth),
        "groups": len(names),
        "accuracy": float(accuracy),
        "accuracy_interval": (float(low[0]), float(high[0])),
        "nll": float(loss),
        "nll_interval": (float(low[1]), float(high[1])),
    }


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
