"""Texture statistics of one block of VGG16, and which position has which share in them.

Of every block the head reads the mean and the standard deviation of each channel over all positions, and of some blocks
how channels vary together: the covariances of the block's strongest directions (after Gatys et al. 2016, who describe
style by them). Each of these numbers is a sum over positions.
"""

from typing import Any, Final

import keras
import numpy as np
from keras import ops

MAP_SIZE: Final = 14  # positions per side of a heat map: block 5's own grid
VARIANCE_FLOOR: Final = 1e-6  # keeps the square root's gradient finite on flat pictures
# Pools are given their strides below: left out, they are wrong on JAX (Keras 3.15).
# A covariance c is read as c / sqrt(|c| + floor): large ones count less, and small ones stay linear (directions are
# scaled to unit variance, so 1 is large).
COVARIANCE_FLOOR: Final = 0.05


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
