"""Numbers about probabilities and truth. numpy only; every function takes probabilities [N, C] and truth int [N]."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

Z95: Final = 1.959964  # two-sided 95 % of the normal distribution
BINS: Final = 15  # of the reliability diagram (Guo et al. 2017)
DRAWS: Final = 10_000  # of the bootstrap of a difference
FEWER_DRAWS: Final = 2_000  # of that of a row of a table, of which a report has dozens
# What an interval takes as independent: whole groups, or pictures, where no groups are known or there is only one.
GROUPS, PICTURES = "groups", "pictures"


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


def evened_out(groups: Sequence[str], group_weight: float) -> Floats:
    """How much each picture counts, [N]: as much as all others at 0; at 1 all groups, whatever their size, the same."""
    _, group, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    result: Floats = sizes[group].astype(np.float64) ** -group_weight
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


def summary(
    probabilities: Floats, truth: Ints, groups: Sequence[str] | None = None, *, target_accuracy: float = 0.9
) -> dict[str, Any]:
    """Everything that a report says about one set of answers. `groups` names each picture's artist, object or book."""
    counts = confusion(probabilities, truth)
    right, of_class, answered = counts.diagonal(), counts.sum(1), counts.sum(0)
    present = of_class > 0
    recall = right / np.maximum(of_class, 1)
    f1 = 2 * right / np.maximum(of_class + answered, 1)
    second = np.sort(probabilities, axis=1)[:, -2]
    accuracy, loss, intervals = _intervals(probabilities.argmax(1) == truth, losses(probabilities, truth), groups)
    return {
        "count": len(truth),
        "accuracy": float(right.sum() / max(1, len(truth))),
        "accuracy_interval": accuracy,
        "balanced_accuracy": float(recall[present].mean()),
        "macro_f1": float(f1[present].mean()),
        "top2": float((probabilities[np.arange(len(truth)), truth] >= second).mean()),
        "nll": nll(probabilities, truth),
        "nll_interval": loss,
        "brier": brier(probabilities, truth),
        "ece": calibration_error(probabilities, truth),
        "coverage": coverage_at(probabilities, truth, target_accuracy)[0],
        **intervals,
    }


def _intervals(
    right: NDArray[np.bool_], loss: Floats, groups: Sequence[str] | None
) -> tuple[tuple[float, float], tuple[float, float], dict[str, Any]]:
    """95 % intervals of the means of `right` and `loss` [N], and what they take as independent.

    Wilson's and the normal one where pictures are independent. Pictures of one artist or book are not: with `groups`
    the intervals are those of a bootstrap that draws whole groups, and never narrower than the others, as a few groups
    that happen to agree would make them.
    """
    count, middle = len(right), float(loss.mean()) if len(loss) else 0.0
    half = float(Z95 * loss.std() / np.sqrt(count)) if count else 0.0
    accuracy, nats = wilson(int(right.sum()), count), (max(0.0, middle - half), middle + half)
    named = len(set(groups)) if groups is not None else 0
    if named < 2:
        return accuracy, nats, {"intervals": PICTURES}
    low, high = _bootstrap(np.stack([right, loss], axis=1), groups or (), FEWER_DRAWS)
    wider = [
        (min(single[0], float(low[i])), max(single[1], float(high[i]))) for i, single in enumerate((accuracy, nats))
    ]
    return wider[0], wider[1], {"intervals": GROUPS, "groups": named}


def _bootstrap(values: Floats, groups: Sequence[str], draws: int) -> NDArray[np.float64]:
    """95 % intervals [2, K] of the columns' means, `values` [N, K], when whole groups are drawn; always the same."""
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((len(names), values.shape[1] + 1))
    np.add.at(sums, group, np.column_stack([values, np.ones(len(values))]))
    times = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), draws)
    drawn = times @ sums  # [draws, K + 1]
    found: NDArray[np.float64] = np.quantile(drawn[:, :-1] / drawn[:, -1:], (0.025, 0.975), axis=0)
    return found


def paired_difference(new: Floats, old: Floats, truth: Ints, groups: Sequence[str]) -> dict[str, Any]:
    """How much more accurate `new` is than `old` on the same pictures, and how much its NLL differs; 95 % intervals.

    The intervals are those of a bootstrap that draws whole groups: pictures of one artist or book are right or wrong
    together, and drawing them one by one would promise too much.
    """
    gains = (new.argmax(1) == truth).astype(np.float64) - (old.argmax(1) == truth)
    numbers = np.stack([gains, losses(new, truth) - losses(old, truth)], axis=1)  # [N, 2]
    low, high = _bootstrap(numbers, groups, DRAWS)
    accuracy, loss = numbers.mean(0)
    return {
        "count": len(truth),
        "groups": len(set(groups)),
        "accuracy": float(accuracy),
        "accuracy_interval": (float(low[0]), float(high[0])),
        "nll": float(loss),
        "nll_interval": (float(low[1]), float(high[1])),
    }


def per_class(
    probabilities: Floats, truth: Ints, labels: tuple[str, ...], groups: Sequence[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Per label: pictures, recall with its interval (see `summary`), precision."""
    counts, right, loss = (
        confusion(probabilities, truth),
        probabilities.argmax(1) == truth,
        losses(probabilities, truth),
    )
    rows = {}
    for c, label in enumerate(labels):
        mine = np.flatnonzero(truth == c).tolist()
        recall, _, intervals = _intervals(
            right[mine], loss[mine], None if groups is None else [groups[i] for i in mine]
        )
        rows[label] = {
            "count": len(mine),
            "recall": float(counts[c, c] / max(1, len(mine))),
            "recall_interval": recall,
            "precision": float(counts[c, c] / max(1, counts[:, c].sum())),
            **intervals,
        }
    return rows
