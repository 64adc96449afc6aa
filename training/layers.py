"""What stands before and behind VGG16: preprocessing, the linear head, and the heat maps of its logits."""

from collections.abc import Sequence
from typing import Any, Final

import keras
from keras import ops

from serving.contract import EMBEDDING, OOD_SCORE
from training.shape import CHANNELS, ModelShape
from training.texture import MAP_SIZE, Texture

# Blue, green, red means of ImageNet as Caffe's VGG16 subtracts them (Simonyan and Zisserman 2014;
# keras.applications.imagenet_utils, mode "caffe").
CAFFE_MEANS: Final = (103.939, 116.779, 123.68)
# What sums of thousands of products are computed in: a model server that computes float32 in bfloat16 leaves float64
# alone. JAX has none unless it is told so, and serves nothing.
WIDE: Final = "float32" if keras.backend.backend() == "jax" else "float64"
UNUSUAL: Final = 0.2  # weight in the ood_score of how unusual the lowest block's numbers are, in deviations

LOGITS: Final = "logits"


@keras.saving.register_keras_serializable("whence")
class CaffePreprocessing(keras.layers.Layer):
    """RGB 0..255 to what VGG16 was trained on: BGR, channel means subtracted, not scaled."""

    def call(self, images: Any) -> Any:
        """Images [N, h, w, 3] of any real dtype, RGB -> float [N, h, w, 3], BGR around zero."""
        return ops.flip(ops.cast(images, self.compute_dtype), axis=-1) - ops.convert_to_tensor(
            CAFFE_MEANS, dtype=self.compute_dtype
        )


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
        self.axes = add(shape=(shape.lowest().stop, shape.axes), name="axes", trainable=False)
        self.centres = add(shape=(shape.centres, shape.axes), name="centres", trainable=False)
        if shape.outside:
            # Means, deviations and a constant -> the log odds of a culture that is none of the classes.
            self.outside = add(shape=(own + 1,), name="outside", initializer="zeros", trainable=False)
            self.usual = add(shape=(2,), name="usual", initializer="ones", trainable=False)
        self.built = True

    def standardise(self, features: Any) -> Any:
        """[N, F]: means and deviations brought to mean 0 and deviation 1, covariances as they are."""
        shift, scale = self._everywhere()
        return ops.multiply(ops.subtract(features, shift), scale)

    def call(self, features: Any) -> dict[str, Any]:
        """Features float32 [N, F] -> logits [N, C], embedding [N, D] of unit length, ood_score [N], all float32."""
        standard = self.standardise(ops.cast(features, WIDE))
        strangeness = self.distance(standard)
        if self.shape.outside:
            # Two kinds of strangers: what lies where no picture does, and what was learnt to be of another culture.
            far = ops.sigmoid(ops.divide(ops.subtract(strangeness, self.usual[0]), self.usual[1]))
            strangeness = ops.maximum(far, ops.sigmoid(self.odds(standard)))
        answer = {
            LOGITS: ops.add(ops.matmul(standard, self.kernel), self.bias),
            EMBEDDING: _unit(ops.matmul(standard[:, self.shape.embedded()], self.projection)),
            OOD_SCORE: strangeness,
        }
        return {name: ops.cast(values, "float32") for name, values in answer.items()}

    def distance(self, standard: Any) -> Any:
        """Standardised features [N, F] -> [N]: a strange picture lies in no direction that is known, or too far out."""
        nearest = ops.max(ops.matmul(self.place(standard), ops.transpose(self.centres)), axis=-1)
        unusual = ops.sqrt(ops.mean(ops.square(standard[:, self.shape.lowest()]), axis=-1))
        return 1 - nearest + UNUSUAL * unusual

    def odds(self, standard: Any) -> Any:
        """Standardised features [N, F] -> [N]: log odds of a culture that is none of the classes."""
        read = ops.take(standard, self.shape.standardised(), axis=-1)
        return ops.add(ops.matmul(read, ops.expand_dims(self.outside[:-1], -1))[:, 0], self.outside[-1])

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
