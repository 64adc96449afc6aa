"""The network: VGG16 without its top, channel statistics of several blocks, and a linear head that reads them.

Plain Keras 3: no TensorFlow is named here, so that the same model trains on any Keras backend.

The head reads, for every channel of a block, the mean over all positions and the standard deviation over all positions
(the "texture" of that block), and is linear in them. Both are sums over positions, so every logit splits exactly into
one share per position: that is the heat map, not an approximation of it.
"""

from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
from keras import ops

from serving.contract import EMBEDDING, HEATMAPS, IMAGE_SIZE, INPUT

# Blue, green, red means of ImageNet as Caffe's VGG16 subtracts them (Simonyan and Zisserman 2014;
# keras.applications.imagenet_utils, mode "caffe").
CAFFE_MEANS: Final = (103.939, 116.779, 123.68)
# The last convolution of each block: what a block says about the picture.
BLOCK_OUTPUTS: Final = {1: "block1_conv2", 2: "block2_conv2", 3: "block3_conv3", 4: "block4_conv3", 5: "block5_conv3"}
BLOCK_CHANNELS: Final = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}
MAP_SIZE: Final = 14  # positions per side of a heat map: block 5's own grid
VARIANCE_FLOOR: Final = 1e-6  # keeps the square root's gradient finite on flat pictures

LOGITS: Final = "logits"
FEATURES: Final = "features"


@dataclass(frozen=True)
class ModelShape:
    """What must be known to build the network before its weights are loaded."""

    classes: int
    blocks: tuple[int, ...] = (2, 3, 4, 5)
    embedding_size: int = 64

    @property
    def features(self) -> int:
        """Numbers that the head reads: a mean and a deviation per channel."""
        return 2 * sum(BLOCK_CHANNELS[block] for block in self.blocks)


@keras.saving.register_keras_serializable("whence")
class CaffePreprocessing(keras.layers.Layer):
    """RGB 0..255 to what VGG16 was trained on: BGR, channel means subtracted, not scaled."""

    def call(self, images: Any) -> Any:
        """Images [N, h, w, 3] of any real dtype, RGB -> float [N, h, w, 3], BGR around zero."""
        return ops.flip(ops.cast(images, self.compute_dtype), axis=-1) - ops.convert_to_tensor(
            CAFFE_MEANS, dtype=self.compute_dtype
        )


@keras.saving.register_keras_serializable("whence")
class ChannelStatistics(keras.layers.Layer):
    """Mean and standard deviation of every channel over all positions, in float32 whatever the block computes in."""

    def call(self, block: Any) -> Any:
        """A block's output [N, h, w, K] -> float32 [N, 2K]: K means, then K deviations."""
        mean, variance = ops.moments(ops.cast(block, "float32"), axes=(1, 2))
        return ops.concatenate([mean, ops.sqrt(variance + VARIANCE_FLOOR)], axis=-1)


def position_shares(block: Any, kernel: Any) -> Any:
    """Each position's share of each logit, for one block: summed over positions it is what the block adds to the logit.

    A mean is the sum of x / P over the P positions. A deviation s is the sum of ((x - mean)^2 + floor) / (P s).
    [N, h, w, K] and the head's rows for this block [2K, C] -> float32 [N, 14, 14, C].
    """
    block = ops.cast(block, "float32")
    _, height, width, channels = block.shape
    mean, variance = ops.moments(block, axes=(1, 2), keepdims=True)
    spread = (ops.square(block - mean) + VARIANCE_FLOOR) / ops.sqrt(variance + VARIANCE_FLOOR)
    shares = ops.matmul(block, kernel[:channels]) + ops.matmul(spread, kernel[channels:])  # [N, h, w, C]
    if height != MAP_SIZE:  # the average of a patch, counted per patch instead of per position: the same sum
        shares = ops.average_pool(shares, (height // MAP_SIZE, width // MAP_SIZE))
    return shares / (MAP_SIZE * MAP_SIZE)


@keras.saving.register_keras_serializable("whence")
class LinearHead(keras.layers.Layer):
    """Statistics -> logits, embedding, and the maps of the logits. Three views of the same linear reading."""

    def __init__(self, shape: dict[str, Any] | ModelShape, **options: Any) -> None:
        super().__init__(dtype="float32", **options)
        self.shape = ModelShape(**shape) if isinstance(shape, dict) else shape

    def build(self, *_: Any) -> None:
        """Makes the weights: `shift`/`scale` standardise the features, `kernel`/`bias` classify, `projection` embeds."""
        features, shape = self.shape.features, self.shape
        self.shift = self.add_weight(shape=(features,), name="shift", initializer="zeros", trainable=False)
        self.scale = self.add_weight(shape=(features,), name="scale", initializer="ones", trainable=False)
        self.kernel = self.add_weight(shape=(features, shape.classes), name="kernel", initializer="zeros")
        self.bias = self.add_weight(shape=(shape.classes,), name="bias", initializer="zeros")
        self.projection = self.add_weight(
            shape=(features, shape.embedding_size), name="projection", initializer="glorot_uniform", trainable=False
        )
        self.built = True

    def call(self, features: Any, blocks: list[Any]) -> dict[str, Any]:
        """features float32 [N, F] and the blocks they came from -> the dict of outputs."""
        standard = (features - self.shift) * self.scale  # [N, F]
        logits = ops.matmul(standard, self.kernel) + self.bias  # [N, C]
        embedding = ops.matmul(standard, self.projection)  # [N, D]
        length = ops.sqrt(ops.sum(ops.square(embedding), axis=-1, keepdims=True) + 1e-12)
        return {LOGITS: logits, EMBEDDING: embedding / length, HEATMAPS: self.maps(blocks), FEATURES: features}

    def maps(self, blocks: list[Any]) -> Any:
        """Each position's share of each logit, float32 [N, 14, 14, C]; their sum over positions is the logit itself."""
        kernel = ops.expand_dims(self.scale, -1) * self.kernel  # [F, C], for features that are not standardised
        constant = self.bias - ops.matmul(self.shift, kernel)  # [C], spread evenly: it belongs to no position
        total, first = constant / (MAP_SIZE * MAP_SIZE), 0
        for block, number in zip(blocks, self.shape.blocks, strict=True):
            size = 2 * BLOCK_CHANNELS[number]
            total = total + position_shares(block, kernel[first : first + size])
            first += size
        return total

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to make this layer again."""
        return {**super().get_config(), "shape": vars(self.shape)}


def build_backbone(weights: str, *, precision: str = "float32") -> keras.Model:
    """VGG16 without top; `weights` is "imagenet", "random" or a path. Convolutions compute in `precision`."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        return keras.applications.VGG16(
            weights=None if weights == "random" else weights,
            include_top=False,
            input_shape=(IMAGE_SIZE, IMAGE_SIZE, 3),
        )
    finally:
        keras.config.set_dtype_policy(before)


def build_model(shape: ModelShape, *, weights: str = "random", precision: str = "float32") -> keras.Model:
    """The whole network: RGB 0..255 [N, 224, 224, 3] -> logits, embedding, heatmaps, features (all float32)."""
    backbone = build_backbone(weights, precision=precision)
    taps = keras.Model(backbone.input, [backbone.get_layer(BLOCK_OUTPUTS[block]).output for block in shape.blocks])
    images = keras.Input((IMAGE_SIZE, IMAGE_SIZE, 3), name=INPUT)
    blocks = taps(CaffePreprocessing(name="preprocessing", dtype="float32")(images))
    blocks = blocks if isinstance(blocks, list) else [blocks]
    statistics = keras.layers.Concatenate(dtype="float32")(
        [ChannelStatistics(name=f"statistics{n}", dtype="float32")(x) for n, x in zip(shape.blocks, blocks, strict=True)]
    )
    return keras.Model(images, LinearHead(shape, name="head")(statistics, blocks), name="culture")


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
    return keras.Model(images, {LOGITS: logits, EMBEDDING: embedding, HEATMAPS: shares}, name="tiny")
