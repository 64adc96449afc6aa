"""The network: VGG16 without its top, texture statistics of several blocks, and a linear head that reads them.

Plain Keras 3: no TensorFlow is named here, so that the same model trains on any Keras backend.

Of every block the head reads the mean and the standard deviation of each channel over all positions, and of some blocks
how channels vary together: the covariances of the block's strongest directions (after Gatys et al. 2016, who describe
style by them). It is linear in these numbers, and each of them is a sum over positions. So every logit splits exactly
into one share per position: that is the heat map, not an approximation of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from serving.contract import EMBEDDING, HEATMAPS, IMAGE_SIZE, INPUT, OOD_SCORE

# Blue, green, red means of ImageNet as Caffe's VGG16 subtracts them (Simonyan and Zisserman 2014;
# keras.applications.imagenet_utils, mode "caffe").
CAFFE_MEANS: Final = (103.939, 116.779, 123.68)
CONVOLUTIONS: Final = {1: 2, 2: 2, 3: 3, 4: 3, 5: 3}  # per block of VGG16, configuration D
CHANNELS: Final = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}
MAP_SIZE: Final = 14  # positions per side of a heat map: block 5's own grid
VARIANCE_FLOOR: Final = 1e-6  # keeps the square root's gradient finite on flat pictures
# Pools are given their strides below: left out, they are wrong on JAX (Keras 3.15).
# A covariance c is read as c / sqrt(|c| + floor): large ones count less, and small ones stay linear (directions are
# scaled to unit variance, so 1 is large).
COVARIANCE_FLOOR: Final = 0.05

# What sums of thousands of products are computed in: a model server that computes float32 in bfloat16 leaves float64
# alone. JAX has none unless it is told so, and serves nothing.
WIDE: Final = "float32" if keras.backend.backend() == "jax" else "float64"

UNUSUAL: Final = 0.2  # weight in the ood_score of how unusual the lowest block's numbers are, in deviations

LOGITS: Final = "logits"
FEATURES: Final = "features"
GIVEN: Final = "given"  # what a block is given: the pooled output of the block before it


@dataclass(frozen=True)
class ModelShape:
    """What must be known to build the network before its weights are loaded."""

    classes: int
    blocks: tuple[int, ...] = (2, 3, 4, 5)
    ranks: tuple[int, ...] = (0, 128, 88, 56)  # per block: directions whose covariances are read
    embedding_size: int = 48
    axes: int = 16  # the directions in which the ood_score tells where a picture lies
    centres: int = 256  # and the places among the training pictures that it knows

    def rank(self, block: int) -> int:
        """Directions of this block whose covariances are read."""
        return self.ranks[self.blocks.index(block)]

    def features_of(self, block: int) -> int:
        """Numbers that the head reads of a block."""
        return 2 * CHANNELS[block] + self.rank(block) * (self.rank(block) + 1) // 2

    @property
    def features(self) -> int:
        """Numbers that the head reads."""
        return sum(self.features_of(block) for block in self.blocks)

    def features_below(self, cut: int) -> int:
        """Numbers that the head reads of the blocks before block `cut`."""
        return sum(self.features_of(block) for block in self.blocks if block < cut)

    def slices(self) -> dict[int, slice]:
        """Where each block's numbers stand among all features."""
        ends = np.cumsum([self.features_of(block) for block in self.blocks]).tolist()
        return {n: slice(end - self.features_of(n), end) for n, end in zip(self.blocks, ends, strict=True)}

    def embedded(self) -> slice:
        """The features that the embedding reads: the means of the highest block."""
        start = self.slices()[self.blocks[-1]].start
        return slice(start, start + CHANNELS[self.blocks[-1]])

    def lowest(self) -> slice:
        """The features that the ood_score reads: means and deviations of the lowest block."""
        return slice(0, 2 * CHANNELS[self.blocks[0]])

    def standardised(self) -> NDArray[np.int32]:
        """Positions of the features that come in units of their own, all but the covariances."""
        slices = self.slices()
        return np.concatenate([np.arange(2 * CHANNELS[n]) + slices[n].start for n in self.blocks]).astype(np.int32)


@keras.saving.register_keras_serializable("whence")
class CaffePreprocessing(keras.layers.Layer):
    """RGB 0..255 to what VGG16 was trained on: BGR, channel means subtracted, not scaled."""

    def call(self, images: Any) -> Any:
        """Images [N, h, w, 3] of any real dtype, RGB -> float [N, h, w, 3], BGR around zero."""
        return ops.flip(ops.cast(images, self.compute_dtype), axis=-1) - ops.convert_to_tensor(
            CAFFE_MEANS, dtype=self.compute_dtype
        )


@keras.saving.register_keras_serializable("whence")
class Texture(keras.layers.Layer):
    """What the head reads of one block, in float32 whatever the block computes in."""

    def __init__(self, channels: int, rank: int, **options: Any) -> None:
        """`rank` directions have their covariances read; 0: none."""
        super().__init__(dtype="float32", **options)
        self.channels, self.rank = channels, rank
        self.pairs = np.array([(i, j) for i in range(rank) for j in range(i, rank)], np.int32).reshape(-1, 2)

    def build(self, *_: Any) -> None:
        """Makes `basis` [K, rank]: the block's strongest directions, scaled to unit variance."""
        if self.rank:
            self.basis = self.add_weight(shape=(self.channels, self.rank), name="basis", trainable=False)
        self.built = True

    def call(self, block: Any) -> Any:
        """A block's output [N, h, w, K] -> float32 [N, F]: K means, K deviations, covariances of each pair i <= j."""
        block = ops.cast(block, "float32")
        mean = _average(block)  # [N, 1, 1, K]
        variance = ops.squeeze(_average(ops.square(block - mean)), axis=(1, 2))
        numbers = [ops.squeeze(mean, axis=(1, 2)), ops.sqrt(variance + VARIANCE_FLOOR)]
        if self.rank:
            covariances = self._covariances(self._directions(block))
            numbers.append(covariances / ops.sqrt(ops.abs(covariances) + COVARIANCE_FLOOR))
        return ops.concatenate(numbers, axis=-1)

    def shares(self, block: Any, kernel: Any) -> Any:
        """Each position's share of what this block adds to each logit.

        A mean is the sum of x / P over the P positions, a deviation s the sum of ((x - mean)^2 + floor) / (P s), a
        covariance the sum of products of centred directions / P; what is made of a covariance is shared as it is.
        Averages over a cell of the map come before the head's rows: the same sum for a part of the work.
        [N, h, w, K] and the head's rows for this block [F, C] -> float32 [N, 14, 14, C].
        """
        block, size = ops.cast(block, "float32"), self.channels
        spread = _cells(ops.square(block - _average(block)))
        variance = _average(spread)
        spread = (spread + VARIANCE_FLOOR) / ops.sqrt(variance + VARIANCE_FLOOR)
        shares = ops.matmul(_cells(block), kernel[:size]) + ops.matmul(spread, kernel[size : 2 * size])
        if self.rank:
            shares = shares + _cells(self._covariance_shares(self._directions(block), kernel[2 * size :]))
        return shares / (MAP_SIZE * MAP_SIZE)

    def _directions(self, block: Any) -> Any:
        """Centred coordinates of every position of the pooled block, [N, h, w, rank]."""
        pooled = block if block.shape[1] <= MAP_SIZE else ops.max_pool(block, 2, 2)  # VGG16's own pooling
        return ops.matmul(pooled - ops.mean(pooled, axis=(1, 2), keepdims=True), self.basis)

    def _products(self, directions: Any) -> Any:
        """[N, h, w, rank] -> [N, rank, rank]: the covariance of each two directions."""
        flat = ops.reshape(directions, (-1, directions.shape[1] * directions.shape[2], self.rank))
        return ops.matmul(ops.transpose(flat, (0, 2, 1)), flat) / flat.shape[1]

    def _covariances(self, directions: Any) -> Any:
        """[N, h, w, rank] -> [N, pairs]."""
        square = ops.reshape(self._products(directions), (-1, self.rank**2))
        return ops.take(square, self.pairs @ [self.rank, 1], axis=1)

    def _covariance_shares(self, directions: Any, kernel: Any) -> Any:
        """[N, h, w, rank] and [pairs, C] -> [N, h, w, C]; averaged over positions it is what the pairs add."""
        _, height, width, rank = directions.shape
        place, upper = np.zeros((rank, rank), np.int32), np.triu(np.ones((rank, rank), np.float32))
        place[self.pairs[:, 0], self.pairs[:, 1]] = np.arange(len(self.pairs))
        weights = ops.take(kernel, place.ravel(), axis=0) * upper.reshape(-1, 1)  # each pair once; [rank^2, C]
        weights = ops.reshape(ops.transpose(weights), (1, -1, rank, rank))
        scales = 1 / ops.sqrt(ops.abs(self._products(directions)) + COVARIANCE_FLOOR)  # [N, rank, rank]
        forms = ops.expand_dims(scales, 1) * weights  # [N, C, rank, rank]
        flat = ops.reshape(directions, (-1, 1, height * width, rank))
        # As matrix products; an einsum of the three does twice the work.
        values = ops.sum(ops.matmul(flat, forms) * flat, axis=-1)  # [N, C, h * w]
        return ops.reshape(ops.transpose(values, (0, 2, 1)), (-1, height, width, kernel.shape[1]))

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to make this layer again."""
        return {**super().get_config(), "channels": self.channels, "rank": self.rank}


def _average(values: Any) -> Any:
    """The mean over all positions: [N, h, w, K] -> [N, 1, 1, K].

    By way of the map's cells where these come out even: oneDNN pools bfloat16 in half the time that TensorFlow's own
    mean takes, and the heat maps read the same cells.
    """
    return ops.mean(values if values.shape[1] % MAP_SIZE else _cells(values), axis=(1, 2), keepdims=True)


def _cells(values: Any) -> Any:
    """The mean of each cell of the map: [N, h, w, K] -> [N, 14, 14, K]."""
    height = values.shape[1]
    size = height // MAP_SIZE
    return values if size == 1 else ops.average_pool(values, size, size)


@keras.saving.register_keras_serializable("whence")
class LinearHead(keras.layers.Layer):
    """Features -> logits, embedding, and the maps of the logits: three views of the same linear reading."""

    def __init__(self, shape: dict[str, Any] | ModelShape, **options: Any) -> None:
        super().__init__(dtype="float32", **options)
        self.shape = ModelShape(**shape) if isinstance(shape, dict) else shape

    def build(self, *_: Any) -> None:
        """Makes the weights: `shift` and `scale` standardise, `kernel` and `bias` classify, `projection` embeds."""
        features, shape, add = self.shape.features, self.shape, self.add_weight
        own = len(shape.standardised())
        self.shift = add(shape=(own,), name="shift", initializer="zeros", trainable=False)
        self.scale = add(shape=(own,), name="scale", initializer="ones", trainable=False)
        self.kernel = add(shape=(features, shape.classes), name="kernel", initializer="zeros")
        self.bias = add(shape=(shape.classes,), name="bias", initializer="zeros")
        embedded = CHANNELS[shape.blocks[-1]]
        self.projection = add(shape=(embedded, shape.embedding_size), name="projection", trainable=False)
        # Where the training pictures lie: the farther from all of these, the stranger a picture is.
        self.axes = add(shape=(2 * CHANNELS[shape.blocks[0]], shape.axes), name="axes", trainable=False)
        self.centres = add(shape=(shape.centres, shape.axes), name="centres", trainable=False)
        self.built = True

    def standardise(self, features: Any) -> Any:
        """[N, F]: means and deviations brought to mean 0 and deviation 1, covariances as they are."""
        shift, scale = self._everywhere()
        return ops.multiply(ops.subtract(features, shift), scale)

    def call(self, features: Any) -> dict[str, Any]:
        """Features float32 [N, F] -> logits [N, C], embedding [N, D] of unit length, ood_score [N], all float32."""
        standard = self.standardise(ops.cast(features, WIDE))
        # A strange picture lies in no direction that is known, or too far out in one.
        nearest = ops.max(ops.matmul(self.place(standard), ops.transpose(self.centres)), axis=-1)
        unusual = ops.sqrt(ops.mean(ops.square(standard[:, self.shape.lowest()]), axis=-1))
        answer = {
            LOGITS: ops.add(ops.matmul(standard, self.kernel), self.bias),
            EMBEDDING: _unit(ops.matmul(standard[:, self.shape.embedded()], self.projection)),
            OOD_SCORE: 1 - nearest + UNUSUAL * unusual,
        }
        return {name: ops.cast(values, "float32") for name, values in answer.items()}

    def place(self, standard: Any) -> Any:
        """Standardised features [N, F] -> where the pictures lie, [N, axes] of unit length."""
        return _unit(ops.matmul(standard[:, self.shape.lowest()], self.axes))

    def rows(self) -> dict[int, Any]:
        """The weights of each block's features as they come, not standardised: [F of the block, C]."""
        kernel = ops.expand_dims(self._everywhere()[1], -1) * self.kernel
        return {block: kernel[place] for block, place in self.shape.slices().items()}

    def constant(self) -> Any:
        """What a logit is when all features are zero, [C]."""
        shift, scale = self._everywhere()
        return self.bias - ops.matmul(shift * scale, self.kernel)

    def _everywhere(self) -> tuple[Any, Any]:
        """Shift and scale of every feature, [F] each."""
        shift, scale, first = [], [], 0
        for block in self.shape.blocks:
            own, rest = 2 * CHANNELS[block], self.shape.features_of(block) - 2 * CHANNELS[block]
            shift += [self.shift[first : first + own], ops.zeros(rest)]
            scale += [self.scale[first : first + own], ops.ones(rest)]
            first += own
        return ops.concatenate(shift), ops.concatenate(scale)

    def get_config(self) -> dict[str, Any]:
        """What Keras needs to make this layer again."""
        return {**super().get_config(), "shape": vars(self.shape)}


def _unit(vectors: Any) -> Any:
    """[N, D] at unit length."""
    return vectors / ops.sqrt(ops.sum(ops.square(vectors), axis=-1, keepdims=True) + 1e-12)


class HeadLogits(keras.layers.Layer):
    """The head's logits in training: standardised features are dropped at random, so that none is leant on."""

    def __init__(self, head: LinearHead, dropout: float, **options: Any) -> None:
        super().__init__(dtype="float32", **options)
        self.head, self.drop = head, keras.layers.Dropout(dropout, dtype="float32")

    def call(self, features: Any, training: bool = False) -> Any:
        """Features float32 [N, F] -> logits [N, C]."""
        standard = self.drop(self.head.standardise(features), training=training)
        return ops.matmul(standard, self.head.kernel) + self.head.bias


@keras.saving.register_keras_serializable("whence")
class HeatMaps(keras.layers.Layer):
    """Each position's share of each logit, float32 [N, 14, 14, C]; summed over positions they are the logits."""

    def __init__(self, textures: Sequence[Texture], head: LinearHead, **options: Any) -> None:
        """Reads the weights of layers that live elsewhere; has none of its own."""
        super().__init__(dtype="float32", **options)
        self._borrowed = lambda: (textures, head)  # behind a function: Keras must not track these layers twice

    def call(self, blocks: list[Any]) -> Any:
        """The blocks' outputs, in the order of the head's blocks."""
        textures, head = self._borrowed()
        total = head.constant() / (MAP_SIZE * MAP_SIZE)  # belongs to no position: spread evenly
        for texture, block, rows in zip(textures, blocks, head.rows().values(), strict=True):
            total = total + texture.shares(block, rows)
        return total


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


def build_extractor(model: keras.Model, cut: int | None, *, side: int = IMAGE_SIZE) -> keras.Model:
    """Images [N, side, side, 3] -> features [N, F] and, unless `cut` is None, `given`: what block `cut` is given.

    That is what fine-tuning from `cut` on needs. The layers are the model's own.
    """
    images = keras.Input((side, side, 3))
    x, read = model.get_layer("preprocessing")(images), []
    outputs = {}
    for block in CONVOLUTIONS:
        if block == cut:
            outputs[GIVEN] = x
        x, texture = _run_block(model, block, x)
        read += texture
    return keras.Model(images, {**outputs, FEATURES: _joined(read)})


def build_trainee(model: keras.Model, cut: int, *, side: int, dropout: float) -> keras.Model:
    """`model` for training from pixels: images [N, side, side, 3] -> logits. Blocks before `cut` stay as they are."""
    for block, count in CONVOLUTIONS.items():
        for number in range(1, count + 1):
            model.get_layer("backbone").get_layer(f"block{block}_conv{number}").trainable = block >= cut
    images = keras.Input((side, side, 3))
    read = _run_blocks(model, 1, model.get_layer("preprocessing")(images))
    return keras.Model(images, HeadLogits(model.get_layer("head"), dropout, name="logits")(_joined(read)))


def build_tail(model: keras.Model, shape: ModelShape, cut: int, *, side: int, dropout: float) -> keras.Model:
    """The part of `model` from block `cut` on, sharing its weights, for training on what `build_extractor` gave.

    Inputs: what block `cut` is given, [N, side, side, K], and the features of the blocks before it. Output: logits.
    """
    given = keras.Input((side, side, CHANNELS[cut - 1]), name=GIVEN)
    known = keras.Input((shape.features_below(cut),), name="lower_features")
    read = [known, *_run_blocks(model, cut, given)]
    logits = HeadLogits(model.get_layer("head"), dropout, name="logits")(_joined(read))
    return keras.Model([given, known], logits, name="tail")


def build_reader(model: keras.Model, cut: int, *, side: int) -> keras.Model:
    """What block `cut` is given, [N, side, side, K] -> what the head reads of that block and those after it."""
    given = keras.Input((side, side, CHANNELS[cut - 1]))
    return keras.Model(given, _joined(_run_blocks(model, cut, given)))


def _run_blocks(model: keras.Model, first: int, x: Any) -> list[Any]:
    """What the head reads of blocks `first` to 5 when `first` is given x."""
    read = []
    for block in range(first, len(CONVOLUTIONS) + 1):
        x, texture = _run_block(model, block, x)
        read += texture
    return read


def _run_block(model: keras.Model, block: int, x: Any) -> tuple[Any, list[Any]]:
    """A block of the model on another input: what the next block is given, and what the head reads of this one."""
    taps, read = model.get_layer("backbone"), []
    for number in range(1, CONVOLUTIONS[block] + 1):
        x = taps.get_layer(f"block{block}_conv{number}")(x)
    if any(layer.name == f"texture{block}" for layer in model.layers):
        read.append(model.get_layer(f"texture{block}")(x))
    return ops.max_pool(x, 2, 2), read  # as VGG16 does between blocks


def _joined(read: list[Any]) -> Any:
    return keras.layers.Concatenate(dtype="float32")(read) if len(read) > 1 else read[0]


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
