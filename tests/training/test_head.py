"""The linear head: the least of one convex loss, with what must not move its logits."""

from dataclasses import replace

import numpy as np
import pytest

from training.config import TrainConfig
from training.data import Examples, FreshViews
from training.frozen import solve_head
from training.head import picture_weights, solve, standardise
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
    examples = Examples(FreshViews(tiny_config, [], pictures), [], rows, rows, truth, np.ones(count), 3)

    def reliance(**changes: float) -> float:
        model = build_model(tiny_config.shape)
        solve_head(replace(tiny_config, **changes), model, [pictures, view], examples)
        kernel = np.asarray(model.get_layer("head").kernel)
        return float(np.ptp(kernel[0]) / np.ptp(kernel[1]))

    assert reliance(consistency=1.0) < reliance(consistency=0.0) / 2
