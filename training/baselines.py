"""What any model must beat, computed on the same split: the most frequent class, and the original project's recipe."""

from typing import Final

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.features import batches
from training.metrics import Floats
from training.model import build_backbone

EPOCHS: Final = 10
LEARNING_RATE: Final = 1e-3  # Adam's default, as the original project left it


def majority(truth: NDArray[np.int64], *, train: NDArray[np.int64], rows: NDArray[np.int64], classes: int) -> Floats:
    """Probabilities [R, C] of one who has only counted the training classes."""
    shares = (np.bincount(truth[train], minlength=classes) + 1.0) / (len(train) + classes)
    result: Floats = np.tile(shares, (len(rows), 1))
    return result


def original_recipe(
    pixels: NDArray[np.uint8],
    truth: NDArray[np.int64],
    *,
    train: NDArray[np.int64],
    rows: NDArray[np.int64],
    classes: int,
    base_weights: str,
    precision: str,
    batch: int,
) -> Floats:
    """Probabilities [R, C] of frozen VGG16, Flatten, Dense: RGB 0..255 as it comes, no Caffe preprocessing.

    A reconstruction: the original fed pixels that VGG16 was not trained on, and read 25,088 numbers position by
    position. Nothing is calibrated, as nothing was.
    """
    backbone = build_backbone(base_weights, precision=precision)
    seen = np.concatenate([train, rows])
    flat = np.empty((len(seen), int(np.prod(backbone.output_shape[1:]))), np.float16)
    with tqdm(total=len(seen), desc="original recipe", unit="picture", mininterval=5) as progress:
        for first, pictures in batches(lambda i: pixels[seen[i]], len(seen), batch):
            outputs = np.asarray(backbone.predict_on_batch(pictures.astype(np.float32)), np.float32)
            flat[first : first + len(outputs)] = outputs.reshape(len(outputs), -1).clip(-6e4, 6e4)
            progress.update(len(pictures))
    keras.utils.set_random_seed(0)
    head = keras.Sequential([keras.Input((flat.shape[1],)), keras.layers.Dense(classes, activation="softmax")])
    head.compile(keras.optimizers.Adam(LEARNING_RATE), "sparse_categorical_crossentropy")
    known = flat[: len(train)].astype(np.float32)
    head.fit(known, truth[train], epochs=EPOCHS, batch_size=batch, verbose=0)
    result: Floats = np.asarray(head.predict(flat[len(train) :].astype(np.float32), verbose=0))
    return result
