"""The last block of VGG16 and the head, trained together on cached maps of the block below. Plain Keras.

The weights that are kept are an exponential moving average, from the epoch with the least validation NLL. A killed run
goes on after its last whole epoch.
"""

import csv
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training.calibrate import probabilities, temperature_of
from training.config import TrainConfig
from training.data import Examples, TrainingBatches
from training.features import CUT
from training.metrics import nll
from training.model import MAP_SIZE, build_tail, load_weights, weights_of

EPOCHS: Final = "epochs.csv"


@dataclass(frozen=True)
class Tuned:
    """One seed's best weights, and its validation logits [N, C]."""

    weights: dict[str, NDArray[Any]]
    logits: NDArray[np.float32]


def finetune(
    config: TrainConfig, model: keras.Model, examples: Examples, *, seed: int, epochs: int | None = None
) -> Tuned:
    """Train from block CUT on, starting with the weights that `model` has; leaves it as it found it.

    With `epochs` exactly so many of the config's are run, whatever the validation pictures say.
    """
    keras.utils.set_random_seed(seed)
    folder = config.run / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    before = weights_of(model)
    tail = build_tail(model, config.shape, CUT, side=examples.side, dropout=config.dropout)
    whole = build_tail(model, config.shape, CUT, side=MAP_SIZE, dropout=0.0)  # the same weights, on whole pictures
    batches = TrainingBatches(examples, batch=config.batch, seed=seed, epoch=_epochs_done(folder))
    tail.compile(
        optimizer=_optimizer(config, len(batches)),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
        metrics=["accuracy"],
    )
    validation = _Validation(whole, examples, config.batch)
    callbacks = _callbacks(config, folder, None if epochs else validation)
    tail.fit(batches, epochs=epochs or config.epochs, callbacks=callbacks, verbose=2)
    tuned = Tuned(weights_of(model), validation.logits())
    load_weights(model, before)
    return tuned


class _Validation(keras.callbacks.Callback):
    """Puts `val_nll` (at the best temperature) and `val_accuracy` of whole pictures among an epoch's logs."""

    def __init__(self, whole: keras.Model, examples: Examples, batch: int) -> None:
        super().__init__()
        self.whole, self.examples, self.batch = whole, examples, batch

    def logits(self) -> NDArray[np.float32]:
        """Of the validation pictures, with the weights as they are now."""
        rows = self.examples.validation
        parts = [rows[first : first + self.batch] for first in range(0, len(rows), self.batch)]
        return np.concatenate([np.asarray(self.whole.predict_on_batch(self.examples.whole(part))) for part in parts])

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """The callbacks after this one find the numbers in the same dict."""
        if logs is not None:
            logits, truth = self.logits(), self.examples.truth[self.examples.validation]
            logs["val_nll"] = nll(probabilities(logits, temperature_of(logits, truth)), truth)
            logs["val_accuracy"] = float((logits.argmax(1) == truth).mean())


def _optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    total = steps * config.epochs
    warmup = max(1, round(config.warmup * total))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, total - warmup), warmup_target=config.learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.AdamW(
        rate, weight_decay=1e-4, global_clipnorm=1.0, use_ema=True, ema_momentum=config.averaging
    )


def _callbacks(config: TrainConfig, folder: Path, validation: _Validation | None) -> list[keras.callbacks.Callback]:
    """In this order: the backup must see the raw weights, everything after the swap the averaged ones."""
    callbacks: list[keras.callbacks.Callback] = [
        keras.callbacks.BackupAndRestore(folder / "backup"),
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
    ]
    if validation:
        stop = keras.callbacks.EarlyStopping("val_nll", patience=config.patience, restore_best_weights=True, mode="min")
        callbacks += [validation, stop]
    callbacks.append(keras.callbacks.CSVLogger(folder / EPOCHS, append=True))
    # Keras writes TensorBoard's files through TensorFlow, and needs the package of that name for it.
    if keras.backend.backend() == "tensorflow" and find_spec("tensorboard"):
        callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard"))
    return callbacks


def best_epoch(run: Path, seed: int) -> int:
    """After how many epochs the validation NLL of a finished run was least."""
    with (run / f"seed_{seed}" / EPOCHS).open(newline="") as file:
        losses = [float(row["val_nll"]) for row in csv.DictReader(file)]
    return losses.index(min(losses)) + 1


def _epochs_done(folder: Path) -> int:
    rows = (folder / EPOCHS).read_text().splitlines() if (folder / EPOCHS).exists() else []
    return max(0, len(rows) - 1)
