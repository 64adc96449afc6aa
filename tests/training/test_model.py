import numpy as np
import pytest

pytest.importorskip("keras")

import keras

from serving.contract import EMBEDDING, HEATMAPS
from training.checkpoint import probe_images
from training.model import (
    FEATURES,
    LOGITS,
    CaffePreprocessing,
    ModelShape,
    build_extractor,
    build_model,
    build_tail,
    load_weights,
    weights_of,
)

pytestmark = pytest.mark.training

SHAPE = ModelShape(classes=3, blocks=(3, 4, 5), ranks=(6, 0, 6), embedding_size=4)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Random convolutions and a random head whose logits are of ordinary size."""
    built, rng = build_model(SHAPE), np.random.default_rng(1)
    weights = weights_of(built)
    for name, value in weights.items():
        if name.startswith(("head", "texture")):
            weights[name] = rng.normal(size=value.shape).astype(np.float32) * 0.1
    load_weights(built, weights)
    return built


@pytest.fixture(scope="module")
def answers(model: keras.Model) -> dict[str, np.ndarray]:
    return model.predict(probe_images().astype(np.float32), verbose=0)


def test_heat_maps_sum_to_the_logits(answers: dict[str, np.ndarray]) -> None:
    assert answers[HEATMAPS].shape == (4, 14, 14, 3)
    np.testing.assert_allclose(answers[HEATMAPS].sum((1, 2)), answers[LOGITS], rtol=1e-3, atol=1e-3)


def test_heat_maps_differ_between_positions(answers: dict[str, np.ndarray]) -> None:
    assert answers[HEATMAPS].std((1, 2)).min() > 0


def test_embedding_has_unit_length(answers: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(np.linalg.norm(answers[EMBEDDING], axis=1), 1, rtol=1e-5)


def test_preprocessing_equals_keras_own() -> None:
    images = probe_images().astype(np.float32)
    expected = keras.applications.vgg16.preprocess_input(images.copy())
    np.testing.assert_allclose(np.asarray(CaffePreprocessing()(images)), expected, atol=1e-4)


def test_tail_answers_as_the_whole_network(model: keras.Model, answers: dict[str, np.ndarray]) -> None:
    features, given = build_extractor(model, SHAPE, 5).predict(probe_images().astype(np.float32), verbose=0)
    np.testing.assert_allclose(features, answers[FEATURES], rtol=1e-4, atol=1e-4)
    lower = SHAPE.slices()[5].start
    tail = build_tail(model, SHAPE, 5, side=14, dropout=0.5)
    np.testing.assert_allclose(
        tail.predict([given, features[:, :lower]], verbose=0), answers[LOGITS], rtol=1e-3, atol=1e-3
    )


def test_load_weights_refuses_another_network(model: keras.Model) -> None:
    with pytest.raises(ValueError, match="differ in"):
        load_weights(model, {"head/bias": np.zeros(3)})
