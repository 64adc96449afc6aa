"""The network: VGG16 without its top, texture statistics of several blocks, and a linear head that reads them.

Plain Keras 3: no TensorFlow is named here, so that the same model trains on any Keras backend.

The head is linear in the statistics, and each of them is a sum over positions. So every logit splits exactly into one
share per position: that is the heat map, not an approximation of it.
"""

from typing import Any, Final

import keras
import numpy as np
from keras import ops

from serving.contract import EMBEDDING, HEATMAPS, IMAGE_SIZE, INPUT, OOD_SCORE
from training.layers import LOGITS, CaffePreprocessing, HeatMaps, LinearHead
from training.shape import CHANNELS, CONVOLUTIONS, ModelShape
from training.texture import MAP_SIZE, Texture

FEATURES: Final = "features"


def build_backbone(weights: str, *, precision: str = "float32") -> keras.Model:
    """VGG16 without top; `weights` is "imagenet", "random" or a path. Convolutions compute in `precision`.

    Random weights are the same every time: what was cached with them stays true.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        backbone = keras.applications.VGG16(
            weights=None if weights == "random" else weights,
            include_top=False,
            input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3),
        )
    finally:
        keras.config.set_dtype_policy(before)
    if weights == "random":
        rng = np.random.default_rng(0)
        for kernel in (weight for weight in backbone.weights if len(weight.shape) == 4):
            deviation = np.sqrt(2 / np.prod(kernel.shape[:3]))  # He et al. 2015: activations keep their size
            kernel.assign(rng.standard_normal(kernel.shape, np.float32) * deviation)
    return backbone


def build_model(shape: ModelShape, *, weights: str = "random", precision: str = "float32") -> keras.Model:
    """The whole network: RGB 0..255 [N, 224, 224, 3] -> logits, embedding, ood_score, heatmaps, features (float32)."""
    backbone = build_backbone(weights, precision=precision)
    outputs = [backbone.get_layer(last_convolution(block)).output for block in shape.blocks]
    taps = keras.Model(backbone.input, outputs, name="backbone")
    images = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name=INPUT)
    blocks = taps(CaffePreprocessing(name="preprocessing", dtype="float32")(images))
    blocks = blocks if isinstance(blocks, list) else [blocks]
    textures, head = [make_texture(shape, block) for block in shape.blocks], LinearHead(shape, name="head")
    read = [texture(block) for texture, block in zip(textures, blocks, strict=True)]
    features = keras.layers.Concatenate(name="features", dtype="float32")(read) if len(read) > 1 else read[0]
    maps = HeatMaps(textures, head, name="maps")
    answer = head(features)
    return keras.Model(images, {**answer, HEATMAPS: maps(blocks), FEATURES: features}, name="culture")


def last_convolution(block: int) -> str:
    """The layer that says what a block of VGG16 sees."""
    return f"block{block}_conv{CONVOLUTIONS[block]}"


def make_texture(shape: ModelShape, block: int) -> Texture:
    """The reading of one block."""
    return Texture(CHANNELS[block], shape.rank(block), name=f"texture{block}")


def weights_of(model: keras.Model) -> dict[str, np.ndarray]:
    """Every weight by a stable name, e.g. "block1_conv1/kernel" or "head/bias": what the checkpoint file holds."""
    return {f"{layer.name}/{weight.name}": np.asarray(weight) for layer, weight in _named_weights(model)}


def load_weights(model: keras.Model, weights: dict[str, np.ndarray]) -> None:
    """The reverse of `weights_of`. Raises ValueError when a name is missing, left over, or of another shape."""
    wanted = {f"{layer.name}/{weight.name}": weight for layer, weight in _named_weights(model)}
    if wanted.keys() != weights.keys():
        raise ValueError(f"checkpoint and model differ in {sorted(wanted.keys() ^ weights.keys())}")
    for name, weight in wanted.items():
        if tuple(weight.shape) != weights[name].shape:
            raise ValueError(f"{name} is {weights[name].shape} in the checkpoint, {tuple(weight.shape)} in the model")
        weight.assign(weights[name].astype("float32"))


def _named_weights(model: keras.Model) -> list[tuple[keras.layers.Layer, Any]]:
    layers = [layer for layer in model._flatten_layers() if layer.weights and not isinstance(layer, keras.Model)]
    return [(layer, weight) for layer in layers for weight in layer.weights]


def ask_head(model: keras.Model, features: np.ndarray) -> dict[str, np.ndarray]:
    """What the model's head makes of features [N, F]: logits, embedding, ood_score."""
    head = model.get_layer("head")
    parts = [head(np.asarray(features[at : at + 512])) for at in range(0, len(features), 512)]
    return {name: np.concatenate([ops.convert_to_numpy(part[name]) for part in parts]) for name in parts[0]}


def build_tiny_model(classes: int, *, seed: int = 0) -> keras.Model:
    """A network of a few thousand random weights with the same outputs, for tests of everything around the model."""
    images = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name=INPUT)
    stride = IMAGE_SIZE // MAP_SIZE
    patches = keras.layers.Conv2D(
        16, stride, strides=stride, activation="relu", kernel_initializer=keras.initializers.GlorotUniform(seed)
    )(keras.layers.Rescaling(1 / 64)(images))
    maps = keras.layers.Dense(classes, kernel_initializer=keras.initializers.GlorotUniform(seed + 1))(patches)
    embedding = keras.layers.UnitNormalization()(keras.layers.GlobalAveragePooling2D()(patches))
    logits = keras.layers.GlobalAveragePooling2D()(maps)
    shares = keras.layers.Rescaling(1 / (MAP_SIZE * MAP_SIZE))(maps)
    strangeness = -ops.logsumexp(logits, axis=-1)
    answer = {LOGITS: logits, EMBEDDING: embedding, OOD_SCORE: strangeness, HEATMAPS: shares}
    return keras.Model(images, answer, name="tiny")
