"""The upper blocks of VGG16 and the head, trained together. Plain Keras, and the same on every backend.

The weights that are kept are an exponential moving average, from the epoch with the least validation NLL. After every
epoch all of it goes into one file, so a killed run goes on as if nothing had happened: weights, optimizer, averages,
dropout's random state, the best weights so far and how long they have been the best.

RUN/seed_<n>/epochs.csv      one line per epoch; the same stands in tensorboard/
RUN/seed_<n>/progress.npz    what a killed run goes on from
RUN/seed_<n>/tuned.npz       the outcome, in its place: a seed that is done is not trained again
"""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training import durable
from training.calibrate import temperature_of
from training.config import TrainConfig, to_values
from training.curves import Curves, Row, read_epochs
from training.data import Examples
from training.layers import LOGITS
from training.metrics import log_softmax, nll
from training.model import ask_head, load_weights, weights_of

PROGRESS: Final = "progress.npz"
TUNED: Final = "tuned.npz"
# Settings that a seed's fine-tuning does not depend on: changing them does not make what it has done worthless.
# `start` is where the first weights are; what counts is what they are.
UNRELATED: Final = {
    "data",
    "prepared",
    "run",
    "start",
    "measured_by",
    "seeds",
    "prior",
    "target_accuracy",
    "strangers",
    "known_share",
    "outside",
    "shown_share",
    "never_shown",
}


@dataclass(frozen=True)
class Tuned:
    """One seed's best weights, and its validation logits [N, C]; none when it was not validated."""

    weights: dict[str, NDArray[Any]]
    logits: NDArray[np.float32]


@dataclass
class Progress:
    """Everything that the next epoch depends on beside the variables themselves."""

    history: list[Row] = field(default_factory=list)  # one row per finished epoch
    best: list[NDArray[Any]] = field(default_factory=list)  # averaged values of the trainable variables
    logits: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))  # theirs

    @property
    def since_best(self) -> int:
        """Epochs since the validation NLL was least."""
        losses = [row["val_nll"] for row in self.history]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0


def finetune(
    config: TrainConfig, model: keras.Model, examples: Examples, *, seed: int, epochs: int | None = None
) -> Tuned:
    """Train from block `config.cut` on, starting with the weights that `model` has; leaves it as it found it.

    With `epochs` exactly so many of the config's are run, whatever the validation pictures say. Raises ValueError when
    the run's folder holds the work of other settings.
    """
    folder, before = config.run / f"seed_{seed}", weights_of(model)
    key = _key(config, examples, epochs, before if config.start else {})
    if (folder / TUNED).exists():
        return _load_tuned(folder / TUNED, key)
    keras.utils.set_random_seed(seed)
    trainee = examples.views.trainee(model, config.dropout)
    steps = math.ceil(len(examples.train) / config.batch)  # an epoch draws as many pictures as there are
    _compile(config, trainee, steps)
    variables = [*trainee.variables, *trainee.optimizer.variables]
    read, start = examples.views.reader(model), _values(trainee.trainable_variables)
    progress = _load_progress(folder / PROGRESS, key, variables)
    with closing(Curves(folder, progress.history)) as curves:
        for epoch in range(len(progress.history), epochs or config.epochs):
            if not epochs and progress.since_best >= config.patience:
                break
            row = _train_epoch(config, trainee, examples, steps=steps, seed=seed, epoch=epoch)
            with _to_keep(trainee, start, config.kept):
                logits = np.empty(0, np.float32)
                if not epochs:
                    logits = ask_head(model, read(examples.validation))[LOGITS]
                    row |= _judge(logits, examples.truth[examples.validation])
                progress.history.append(row)
                if epochs or progress.since_best == 0:
                    progress.best, progress.logits = _values(trainee.trainable_variables), logits
            _save_progress(folder / PROGRESS, key, variables, progress)
            curves.add(row)
            tqdm.write(f"seed {seed}, " + ", ".join(f"{name} {value:.4g}" for name, value in row.items()))
    _assign(trainee.trainable_variables, progress.best)
    tuned = Tuned(weights_of(model), progress.logits)
    _save(folder / TUNED, {"key": key, "logits": tuned.logits, **tuned.weights})
    (folder / PROGRESS).unlink()
    load_weights(model, before)
    return tuned


def best_epoch(run: Path, seed: int) -> int:
    """After how many epochs the validation NLL of a finished run was least."""
    losses = [row["val_nll"] for row in read_epochs(run / f"seed_{seed}")]
    return losses.index(min(losses)) + 1


def _compile(config: TrainConfig, trainee: keras.Model, steps: int) -> None:
    total = steps * config.epochs
    warmup = max(1, round(config.warmup * total))
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, total - warmup), warmup_target=config.learning_rate, warmup_steps=warmup
    )
    optimizer = keras.optimizers.AdamW(
        rate, weight_decay=1e-4, global_clipnorm=1.0, use_ema=True, ema_momentum=config.averaging
    )
    trainee.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=config.label_smoothing),
        metrics=["accuracy"],
        jit_compile=_jit_compile(),
    )
    optimizer.build(trainee.trainable_variables)


def _jit_compile() -> bool | str:
    """Not through XLA on a processor: TensorFlow's own kernels do a bfloat16 step twice as fast there (2 cores)."""
    on_processor = keras.backend.backend() == "tensorflow" and not keras.distribution.list_devices("gpu")
    return False if on_processor else "auto"


def _train_epoch(
    config: TrainConfig, trainee: keras.Model, examples: Examples, *, steps: int, seed: int, epoch: int
) -> Row:
    found = []
    drawn = examples.drawn(batch=config.batch, steps=steps, seed=seed, epoch=epoch)
    with tqdm(drawn, f"seed {seed}, epoch {epoch + 1}", steps, unit="batch", mininterval=5) as progress:
        for inputs, truth in progress:
            found.append(trainee.train_on_batch(inputs, truth, return_dict=True))
            progress.set_postfix(loss=f"{found[-1]['loss']:.3f}", refresh=False)
    rate = float(keras.ops.convert_to_numpy(trainee.optimizer.learning_rate))
    means = {name: float(np.mean([row[name] for row in found])) for name in ("loss", "accuracy")}
    return {"epoch": epoch + 1, "learning_rate": rate, **means}


@contextmanager
def _to_keep(trainee: keras.Model, start: list[NDArray[Any]], kept: float) -> Iterator[None]:
    """The weights to keep in place of the raw ones, for as long as the block lasts.

    They are the share `kept` of the way from those at the start to the average over steps.
    """
    raw = _values(trainee.trainable_variables)
    trainee.optimizer.finalize_variable_values(trainee.trainable_variables)
    averages = _values(trainee.trainable_variables)
    _assign(trainee.trainable_variables, [a + kept * (b - a) for a, b in zip(start, averages, strict=True)])
    yield
    _assign(trainee.trainable_variables, raw)


def _judge(logits: NDArray[np.float32], truth: NDArray[np.int64]) -> Row:
    """At the best temperature for all of them."""
    known = np.exp(log_softmax(logits / temperature_of(logits, truth)))
    return {"val_nll": nll(known, truth), "val_accuracy": float((logits.argmax(1) == truth).mean())}


def _values(variables: list[Any]) -> list[NDArray[Any]]:
    return [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]


def _assign(variables: list[Any], values: list[NDArray[Any]]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _key(config: TrainConfig, examples: Examples, epochs: int | None, start: dict[str, NDArray[Any]]) -> str:
    """What tells this fine-tuning from one with other settings, other pictures, or other weights of `config.start`.

    A head that was solved here is left out: processors differ in its last digits, and settings and pictures say it all.
    """
    values = {name: value for name, value in to_values(config).items() if name not in UNRELATED}
    found = hashlib.sha256(json.dumps([values, epochs]).encode())
    for rows in (examples.train, examples.validation, examples.truth):
        found.update(rows.tobytes())
    for name in sorted(start):
        found.update(name.encode() + start[name].tobytes())
    return found.hexdigest()


def _save_progress(path: Path, key: str, variables: list[Any], progress: Progress) -> None:
    arrays: dict[str, Any] = {"key": key, "history": json.dumps(progress.history), "logits": progress.logits}
    arrays |= {f"variable {i}": value for i, value in enumerate(_values(variables))}
    arrays |= {f"best {i}": value for i, value in enumerate(progress.best)}
    _save(path, arrays)


def _load_progress(path: Path, key: str, variables: list[Any]) -> Progress:
    """What was saved, with the variables set to their values; nothing done, when nothing was saved."""
    if not path.exists():
        return Progress()
    with np.load(path) as saved:
        _check_key(path, key, str(saved["key"]))
        _assign(variables, [saved[f"variable {i}"] for i in range(len(variables))])
        best = [saved[name] for name in saved.files if name.startswith("best ")]
        return Progress(json.loads(str(saved["history"])), best, saved["logits"])


def _load_tuned(path: Path, key: str) -> Tuned:
    with np.load(path) as saved:
        _check_key(path, key, str(saved["key"]))
        weights = {name: saved[name] for name in saved.files if name not in ("key", "logits")}
        return Tuned(weights, saved["logits"])


def _save(path: Path, arrays: dict[str, Any]) -> None:
    with durable.writing(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def _check_key(path: Path, wanted: str, found: str) -> None:
    if wanted != found:
        raise ValueError(
            f"{path} was made with other settings, pictures or first weights: choose another --run, or delete it"
        )
