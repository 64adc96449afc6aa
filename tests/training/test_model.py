from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("keras")

import keras

from serving.contract import EMBEDDING, HEATMAPS, OOD_SCORE
from training.checkpoint import probe_images
from training.layers import LOGITS, UNUSUAL, CaffePreprocessing, LinearHead
from training.model import FEATURES, ask_head, build_model, load_weights, weights_of
from training.parts import GIVEN, build_extractor, build_tail, build_trainee
from training.shape import ModelShape

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


def test_what_lies_at_a_centre_is_strange_only_by_how_far_out_it_is(
    model: keras.Model, answers: dict[str, np.ndarray]
) -> None:
    head, before = model.get_layer("head"), weights_of(model)
    standard = head.standardise(answers[FEATURES])
    places = np.asarray(head.place(standard))
    load_weights(model, before | {"head/centres": np.resize(places[:1], before["head/centres"].shape)})
    scores = ask_head(model, answers[FEATURES])[OOD_SCORE]
    load_weights(model, before)
    away = 1 - places @ places[0]
    lowest = np.asarray(standard)[:, : 2 * 256]  # means and deviations of block 3, the lowest one read here
    np.testing.assert_allclose(scores, away + UNUSUAL * np.sqrt((lowest**2).mean(1)), rtol=1e-4)
    assert away[0] == pytest.approx(0, abs=1e-5)
    assert away[1:].max() > 0.01


def test_what_was_learnt_to_be_of_another_culture_is_strange(answers: dict[str, np.ndarray]) -> None:
    head, features = LinearHead(replace(SHAPE, outside=True)), answers[FEATURES]
    head.build()
    rng = np.random.default_rng(2)
    for weight in head.weights:
        weight.assign(rng.normal(size=weight.shape) * 0.1)
    head.usual.assign([1e6, 1.0])  # nothing is far
    standard = np.asarray(head.standardise(features), np.float64)
    own, outside = standard[:, SHAPE.standardised()], np.asarray(head.outside)
    odds = own @ outside[:-1] + outside[-1]
    np.testing.assert_allclose(head(features)[OOD_SCORE], 1 / (1 + np.exp(-odds)), rtol=1e-3, atol=1e-5)
    head.usual.assign([np.asarray(head.distance(standard)).min(), 1e-3])  # nearly everything is
    np.testing.assert_allclose(np.sort(head(features)[OOD_SCORE])[1:], 1, atol=1e-3)


def test_preprocessing_equals_keras_own() -> None:
    images = probe_images().astype(np.float32)
    expected = keras.applications.vgg16.preprocess_input(images.copy())
    np.testing.assert_allclose(np.asarray(CaffePreprocessing()(images)), expected, atol=1e-4)


@pytest.mark.parametrize("cut", [4, 5])
def test_tail_answers_as_the_whole_network(model: keras.Model, answers: dict[str, np.ndarray], cut: int) -> None:
    found = build_extractor(model, cut).predict(probe_images().astype(np.float32), verbose=0)
    np.testing.assert_allclose(found[FEATURES], answers[FEATURES], rtol=1e-4, atol=1e-4)
    lower = found[FEATURES][:, : SHAPE.features_below(cut)]
    tail = build_tail(model, SHAPE, cut, side=found[GIVEN].shape[1], dropout=0.5)
    np.testing.assert_allclose(tail.predict([found[GIVEN], lower], verbose=0), answers[LOGITS], rtol=1e-3, atol=1e-3)


def test_trainee_answers_as_the_whole_network(model: keras.Model, answers: dict[str, np.ndarray]) -> None:
    trainee = build_trainee(model, 4, side=224, dropout=0.5)
    found = trainee.predict(probe_images().astype(np.float32), verbose=0)
    np.testing.assert_allclose(found, answers[LOGITS], rtol=1e-3, atol=1e-3)


def test_trainee_changes_the_blocks_from_the_cut_on_and_the_head(model: keras.Model) -> None:
    trainee = build_trainee(model, 4, side=64, dropout=0.5)
    names = [variable.path for variable in trainee.trainable_variables]
    assert len(names) == 2 * 6 + 2
    assert not any(name.startswith(("block1", "block2", "block3", "texture")) for name in names)


def test_load_weights_refuses_another_network(model: keras.Model) -> None:
    with pytest.raises(ValueError, match="differ in"):
        load_weights(model, {"head/bias": np.zeros(3)})
