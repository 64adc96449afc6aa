"""Cached features as batches for Keras: drawn class by class for training, in order for validation."""

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from training.features import Features


@dataclass(frozen=True)
class Examples:
    """What there is to learn from: rows of the cached features."""

    features: Features
    lower: int  # how many of a row's features come from blocks that stay as they are
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    truth: NDArray[np.int64]  # of every row; -1 where the culture is no label
    weights: NDArray[np.floating[Any]]  # of `train`: how often a picture is drawn
    classes: int

    @property
    def side(self) -> int:
        """Positions per side of the smallest view: what is trained on."""
        return int(min(view.shape[1] for view in self.features.given))

    def whole(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], NDArray[Any]]:
        """What `training.model.build_tail` takes, for the pictures as they are."""
        return self.features.given[0][rows].astype(np.float32), self._lower(0, rows)

    def crops(
        self, rows: NDArray[np.int64], views: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """The same for one view of each row; of a view that is larger than `side`, a random part."""
        given = np.empty((len(rows), self.side, self.side, self.features.given[0].shape[-1]), np.float32)
        lower = np.empty((len(rows), self.lower), np.float32)
        for place, (row, view) in enumerate(zip(rows, views, strict=True)):
            maps = self.features.given[view][row]
            top, left = rng.integers(0, np.array(maps.shape[:2]) - self.side + 1)
            given[place] = maps[top : top + self.side, left : left + self.side]
            lower[place] = self.features.features[view][row, : self.lower]
        return given, lower

    def _lower(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(self.features.features[view][rows, : self.lower])


class TrainingBatches(keras.utils.PyDataset):
    """Random views of pictures drawn with the examples' weights; the same for the same seed and epoch."""

    def __init__(self, examples: Examples, *, batch: int, seed: int, epoch: int = 0) -> None:
        super().__init__(workers=1)
        self.examples, self.batch, self.seed, self.epoch = examples, batch, seed, epoch
        self.chances = examples.weights / examples.weights.sum()

    def __len__(self) -> int:
        """Batches in an epoch: as many pictures as there are."""
        return math.ceil(len(self.examples.train) / self.batch)

    def __getitem__(self, index: int) -> tuple[tuple[NDArray[Any], NDArray[Any]], NDArray[Any]]:
        """((given, lower features), one-hot truth)."""
        rng = np.random.default_rng([self.seed, self.epoch, index])
        rows = rng.choice(self.examples.train, self.batch, p=self.chances)
        views = rng.integers(0, len(self.examples.features.given), self.batch)
        return self.examples.crops(rows, views, rng), one_hot(self.examples.truth[rows], self.examples.classes)

    def on_epoch_end(self) -> None:
        """Another epoch draws other pictures."""
        self.epoch += 1


def one_hot(truth: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """[N] -> [N, C]."""
    result: NDArray[np.float32] = np.eye(classes, dtype=np.float32)[truth]
    return result
