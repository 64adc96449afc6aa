"""The last block of VGG16 and the head, trained together on cached maps of the block below. Plain Keras.

The weights that are kept are an exponential moving average, from the epoch with the least validation NLL. A killed run
goes on after its last whole epoch.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray

from training.config import TrainConfig
from training.data import Examples, TrainingBatches, ValidationBatches
from training.features import CUT
from training.model import build_tail, load_weights, weights_of

EPOCHS: Final = "epochs.csv"


@dataclass(frozen=True)
class Tuned:
    """One seed's best weights, and its validation logits [N, C]."""

    weights: dict[str, NDArray[Any]]
    logits: NDArray[np.float32]


def finetune(config: TrainConfig, model: keras.Model, examples: Examples, *, seed: int) -> Tuned:
    """Train from block CUT on, starting with the weights that `model` has; leaves it as it found it."""
    keras.utils.set_random_seed(seed)
    folder = config.run / f"seed_{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    before = weights_of(model)
    tail = build_tail(model, config.shape, CUT, dropout=config.dropout)
    batches = TrainingBatches(examples, batch=config.batch, seed=seed, epoch=_epochs_done(folder))
    tail.compile(
        optimizer=_optimizer(config, len(batches)),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
        # The loss without smoothing, and what people ask for.
        metrics=[keras.metrics.CategoricalCrossentropy(name="nll", from_logits=True), "accuracy"],
    )
    validation = ValidationBatches(examples, batch=config.batch)
    validates = config.train_on == "train"
    tail.fit(
        batches,
        epochs=config.epochs,
        validation_data=validation if validates else None,
        callbacks=_callbacks(config, folder, validates=validates),
        verbose=2,
    )
    tuned = Tuned(weights_of(model), np.asarray(tail.predict(validation, verbose=0)))
    load_weights(model, before)
    return tuned


def _optimizer(config: TrainConfig, steps: int) -> keras.optimizers.Optimizer:
    total = steps * config.epochs
    warmup = max(1, round(config.warmup * total))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, total - warmup), warmup_target=config.learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.AdamW(rate, weight_decay=1e-4, global_clipnorm=1.0, use_ema=True, ema_momentum=config.averaging)


def _callbacks(config: TrainConfig, folder: Path, *, validates: bool) -> list[keras.callbacks.Callback]:
    """In this order: the backup must see the raw weights, early stopping the averaged ones."""
    callbacks: list[keras.callbacks.Callback] = [
        keras.callbacks.BackupAndRestore(folder / "backup"),
        keras.callbacks.CSVLogger(folder / EPOCHS, append=True),
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
    ]
    if validates:
        callbacks.append(
            keras.callbacks.EarlyStopping("val_nll", patience=config.patience, restore_best_weights=True, mode="min")
        )
    if keras.backend.backend() == "tensorflow":  # Keras writes TensorBoard's files through TensorFlow only
        callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard"))
    return callbacks


def _epochs_done(folder: Path) -> int:
    rows = (folder / EPOCHS).read_text().splitlines() if (folder / EPOCHS).exists() else []
    return max(0, len(rows) - 1)
