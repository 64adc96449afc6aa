"""The linear head as the convex problem that it is: multinomial logistic regression, solved to its one optimum.

No seed, no learning rate, no framework: scipy's L-BFGS on numpy arrays.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from training.metrics import Floats, Ints, evened_out, log_softmax

ITERATIONS: Final = 100  # the validation NLL stops moving well before


def picture_weights(truth: Ints, groups: Sequence[str], *, group_weight: float) -> Floats:
    """How much each picture counts: every class the same in sum; inside it, artists evened out by `group_weight`."""
    weights = evened_out(groups, group_weight)
    result: Floats = weights / np.bincount(truth, weights=weights)[truth] / len(np.unique(truth))
    return result


def even_out(features: NDArray[np.float32], slices: Sequence[slice]) -> list[float]:
    """Brings each slice of columns to mean square 1, in place: one penalty then suits all. Returns the factors."""
    factors = []
    for place in slices:
        factors.append(float(1 / np.sqrt(np.mean(features[:, place] ** 2) + 1e-12)))
        features[:, place] *= factors[-1]
    return factors


def standardise(features: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """`shift` and `scale` that bring every feature to mean 0 and deviation 1; nearly constant ones are left small."""
    deviation = features.std(0)
    return features.mean(0), (1 / (deviation + 0.01 * np.median(deviation) + 1e-6)).astype(np.float32)


def solve(
    features: NDArray[np.float32],
    truth: Ints,
    weights: Floats,
    *,
    classes: int,
    weight_decay: float,
    smoothing: float,
    penalties: Sequence[tuple[float, NDArray[np.float32]]] = (),
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Kernel [F, C] and bias [C] with the least weighted, smoothed cross entropy plus weight_decay / 2 * |kernel|^2.

    Plus strength / 2 * |rows @ kernel|^2 for each of `penalties`, (strength, rows [R, F]): directions in which the
    logits should not change.
    """
    size = features.shape[1] * classes
    target = np.eye(classes, dtype=np.float32)[truth] * (1 - smoothing) + smoothing / classes
    share = (weights / weights.sum()).astype(np.float32)[:, None]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        kernel, bias = flat[:size].reshape(-1, classes).astype(np.float32), flat[size:].astype(np.float32)
        logs = log_softmax(features @ kernel + bias)
        slope = (np.exp(logs) - target) * share
        value = -(share * target * logs).sum() + weight_decay / 2 * (kernel**2).sum()
        change = features.T @ slope + weight_decay * kernel
        for strength, rows in penalties:
            changed = rows @ kernel
            value += strength / 2 * (changed**2).sum()
            change += strength * (rows.T @ changed)
        return float(value), np.concatenate([change.ravel(), slope.sum(0)]).astype(np.float64)

    options: dict[str, Any] = {"maxiter": ITERATIONS, "maxcor": 12}
    found = minimize(loss, np.zeros(size + classes), jac=True, method="L-BFGS-B", options=options).x
    return found[:size].reshape(-1, classes).astype(np.float32), found[size:].astype(np.float32)


def project(features: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """A projection [F, size] of standardised features onto their strongest directions, each scaled to unit variance."""
    strengths, directions = np.linalg.eigh(np.cov(features, rowvar=False))
    result: NDArray[np.float32] = (directions[:, ::-1][:, :size] / np.sqrt(strengths[::-1][:size] + 1e-6)).astype(
        np.float32
    )
    return result
