"""The linear head: the least of one convex loss, with what must not move its logits."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from training.config import TrainConfig
from training.data import Examples, FreshViews
from training.fit import solve_head
from training.head import group_spread, picture_weights, solve, standardise
from training.metrics import log_softmax, nll
from training.model import build_model

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]  # TensorFlow and Keras warn about themselves


def test_solve_separates_what_is_separable() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 50)
    features = rng.normal(size=(100, 5)).astype(np.float32) + truth[:, None] * 3
    shift, scale = standardise(features)
    weights = picture_weights(truth, ["a"] * 100, group_weight=0)
    kernel, bias = solve((features - shift) * scale, truth, weights, classes=2, weight_decay=0.01, smoothing=0)
    assert nll(np.exp(log_softmax((features - shift) * scale @ kernel + bias)), truth) < 0.1


def test_group_spread_is_the_variance_of_the_logits_between_the_groups_of_a_class() -> None:
    rng = np.random.default_rng(0)
    truth, groups = np.repeat([0, 1], 6), list("aabbbbccccdd")
    features, weights = rng.normal(size=(12, 3)).astype(np.float32), rng.uniform(1, 2, 12)
    logits, expected = features @ (kernel := rng.normal(size=(3, 2)).astype(np.float32)), 0.0
    for label, names in ((0, "ab"), (1, "cd")):
        middle = np.average(logits[truth == label], axis=0, weights=weights[truth == label])
        for name in names:
            own = np.array(groups) == name
            mean = np.average(logits[own], axis=0, weights=weights[own])
            expected += weights[own].sum() / weights.sum() * ((mean - middle) ** 2).sum()
    spread = group_spread(features, truth, weights, groups)
    assert spread.shape == (4, 3)
    assert ((spread @ kernel) ** 2).sum() == pytest.approx(expected, rel=1e-5)


def test_a_group_penalty_makes_the_head_read_what_the_artists_of_a_class_have_in_common() -> None:
    rng = np.random.default_rng(0)
    truth, groups = np.repeat([0, 1], 100), [f"artist {i // 50}" for i in range(200)]
    look = np.repeat([3.0, 1.0, -1.0, -3.0], 50)  # tells the classes apart for these artists, but differs inside each
    common = truth * 2 - 1 + rng.normal(size=200) * 0.5
    features = np.stack([look, common], 1).astype(np.float32)
    weights, options = np.ones(200), {"classes": 2, "weight_decay": 0.01, "smoothing": 0.0}
    plain, _ = solve(features, truth, weights, **options)
    spread = group_spread(features, truth, weights, groups)
    careful, _ = solve(features, truth, weights, **options, penalties=[(1.0, spread)])

    def reliance(kernel: NDArray[np.float32]) -> float:
        return float(np.ptp(kernel[0]) / np.ptp(kernel[1]))

    assert reliance(careful) < reliance(plain) / 2


def test_picture_weights_even_out_classes_and_artists() -> None:
    weights = picture_weights(np.array([0, 0, 0, 1]), ["many", "many", "one", "other"], group_weight=1.0)
    np.testing.assert_allclose(weights, [0.125, 0.125, 0.25, 0.5])


def test_consistency_keeps_the_answer_when_a_view_changes(tiny_config: TrainConfig) -> None:
    rng, count = np.random.default_rng(0), 60
    pictures = rng.normal(size=(count, tiny_config.shape.features)).astype(np.float32)
    rows, truth = np.arange(count), np.arange(count) % 3
    pictures[:, 0] += truth * 3  # tells the classes apart, but not in every view
    pictures[:, 1] += truth * 2
    view = pictures.copy()
    view[:, 0] = rng.permutation(view[:, 0])
    groups, weights = ["one"] * count, np.ones(count)
    examples = Examples(FreshViews(tiny_config, [], pictures), [], rows, rows, truth, groups, weights, 3)

    def reliance(**changes: float) -> float:
        model = build_model(tiny_config.shape)
        solve_head(replace(tiny_config, **changes), model, [pictures, view], examples)
        kernel = np.asarray(model.get_layer("head").kernel)
        return float(np.ptp(kernel[0]) / np.ptp(kernel[1]))

    assert reliance(consistency=1.0) < reliance(consistency=0.0) / 2
