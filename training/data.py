"""What there is to learn from, in the two forms that it can have: cached maps of a block, or the pictures themselves.

Both give the same to whoever trains: a network that shares the model's weights, random batches for it, and what the
head reads of any picture once the network has changed. The same seeds give the same batches, on any machine.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol

import keras
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from training.config import TrainConfig
from training.features import Features, ahead, augmented, batches
from training.model import FEATURES
from training.parts import build_extractor, build_reader, build_tail, build_trainee
from training.records import Record

Rows = NDArray[np.int64]
Reader = Callable[[Rows], NDArray[np.float32]]  # rows -> what the head reads of them now, [R, F]
THREADS: Final = 2  # that decode and augment while the network works


class Views(Protocol):
    """The pictures as fine-tuning sees them."""

    def trainee(self, model: keras.Model, dropout: float) -> keras.Model:
        """What is to be trained: what `draw` gives -> logits."""

    def draw(self, rows: Rows, rng: np.random.Generator) -> Any:
        """A random view of each row, as the trainee takes them."""

    def reader(self, model: keras.Model) -> Reader:
        """Asks the model as it is at the time, about the pictures as they are."""


class CachedViews:
    """Maps that were computed once, below the block that is trained."""

    def __init__(self, config: TrainConfig, features: Features) -> None:
        self._config, self._features = config, features
        self._lower = config.shape.features_below(config.cut)
        # Of a view that is larger than the smallest one, a random part is trained on.
        self._side = int(min(given.shape[1] for given in features.given))

    def trainee(self, model: keras.Model, dropout: float) -> keras.Model:
        """See Views."""
        return build_tail(model, self._config.shape, self._config.cut, side=self._side, dropout=dropout)

    def draw(self, rows: Rows, rng: np.random.Generator) -> Any:
        """See Views."""
        chosen = rng.integers(0, len(self._features.given), len(rows))
        given = np.empty((len(rows), self._side, self._side, self._features.given[0].shape[-1]), np.float32)
        lower = np.empty((len(rows), self._lower), np.float32)
        for place, (row, view) in enumerate(zip(rows, chosen, strict=True)):
            maps = self._features.given[view][row]
            top, left = rng.integers(0, np.array(maps.shape[:2]) - self._side + 1)
            given[place] = maps[top : top + self._side, left : left + self._side]
            lower[place] = self._features.features[view][row, : self._lower]
        return given, lower

    def reader(self, model: keras.Model) -> Reader:
        """See Views."""
        given, features, size = self._features.given[0], self._features.features[0], self._config.batch
        network = build_reader(model, self._config.cut, side=given.shape[1])

        def read(rows: Rows) -> NDArray[np.float32]:
            found = np.array(features[rows])  # [R, F]; the upper blocks' part is written over
            for at in tqdm(range(0, len(rows), size), "pictures", unit="batch", mininterval=5):
                part = slice(at, at + size)
                found[part, self._lower :] = network.predict_on_batch(given[rows[part]].astype(np.float32))
            return found

        return read


class FreshViews:
    """Pictures, augmented anew for every batch."""

    def __init__(self, config: TrainConfig, records: Sequence[Record], pixels: NDArray[np.uint8]) -> None:
        self._config, self._records, self._pixels = config, records, pixels
        self._pool = ThreadPoolExecutor(THREADS)

    def trainee(self, model: keras.Model, dropout: float) -> keras.Model:
        """See Views."""
        return build_trainee(model, self._config.cut, side=self._config.augmentation.side, dropout=dropout)

    def draw(self, rows: Rows, rng: np.random.Generator) -> Any:
        """See Views."""
        seeds = rng.integers(0, 2**32, len(rows))  # drawn here, in order, whichever thread uses them when
        made = self._pool.map(lambda row, seed: augmented(self._config, self._records[row], [seed]), rows, seeds)
        return np.stack(list(made)).astype(np.float32)

    def reader(self, model: keras.Model, *, grey: bool = False) -> Reader:
        """See Views. With `grey` the pictures lose their colours first."""
        config, pixels = self._config, self._pixels
        network = build_extractor(model, None)

        def shown(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
            return np.asarray(Image.fromarray(picture).convert("L").convert("RGB") if grey else picture)

        def read(rows: Rows) -> NDArray[np.float32]:
            found = np.empty((len(rows), config.shape.features), np.float32)
            with tqdm(total=len(rows), desc="pictures", unit="picture", mininterval=5) as progress:
                for first, pictures in batches(lambda place: shown(pixels[rows[place]]), len(rows), config.batch):
                    values = network.predict_on_batch(pictures.astype(np.float32))[FEATURES]
                    found[first : first + len(pictures)] = values
                    progress.update(len(pictures))
            return found

        return read


@dataclass(frozen=True)
class Examples:
    """Which pictures are trained on and which judge it; all of them are rows of the labelled pictures."""

    views: Views
    features: list[NDArray[np.float32]]  # per view [L, F]: what the head reads before fine-tuning
    train: Rows
    validation: Rows
    truth: NDArray[np.int64]  # of every row; -1 where the culture is no label
    weights: NDArray[np.floating[Any]]  # of `train`: how often a picture is drawn
    classes: int

    def drawn(self, *, batch: int, steps: int, seed: int, epoch: int) -> Iterator[tuple[Any, NDArray[np.float32]]]:
        """An epoch's (inputs, one-hot truth): pictures drawn with their weights, the same for the same seed."""
        chances = self.weights / self.weights.sum()

        def draw(step: int) -> tuple[Any, NDArray[np.float32]]:
            rng = np.random.default_rng([seed, epoch, step])
            rows = rng.choice(self.train, batch, p=chances)
            return self.views.draw(rows, rng), np.eye(self.classes, dtype=np.float32)[self.truth[rows]]

        return ahead(draw, steps)
