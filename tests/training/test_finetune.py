"""Fine-tuning on random maps of two classes, of a block 5 that is small because its maps are: 4 x 4 positions."""

import csv
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from training.config import TrainConfig
from training.data import CachedViews, Examples, Rows
from training.features import Features
from training.finetune import PROGRESS, TUNED, Tuned, finetune
from training.model import build_model, load_weights, weights_of
from training.shape import ModelShape

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]  # TensorFlow and Keras warn about themselves

PICTURES = 48


class Killed(Exception):
    """The process ended here."""


class Killable(CachedViews):
    """Views that raise after so many batches, and count how many they have drawn."""

    def __init__(self, config: TrainConfig, features: Features, *, after: int = 10**9) -> None:
        super().__init__(config, features)
        self.after, self.drawn = after, 0

    def draw(self, rows: Rows, rng: np.random.Generator) -> Any:
        if self.drawn == self.after:
            raise Killed
        self.drawn += 1
        return super().draw(rows, rng)


@pytest.fixture(scope="module")
def network() -> tuple[keras.Model, dict[str, np.ndarray]]:
    keras.utils.set_random_seed(0)
    built = build_model(ModelShape(classes=2, blocks=(4, 5), ranks=(0, 0), embedding_size=2))
    return built, {name: value.copy() for name, value in weights_of(built).items()}


@pytest.fixture
def model(network: tuple[keras.Model, dict[str, np.ndarray]]) -> keras.Model:
    """As a process that starts finds it, whatever another test left in it."""
    load_weights(*network)
    return network[0]


def settings(folder: Path) -> TrainConfig:
    """A learning rate at which the first epochs help and the later ones do not."""
    return TrainConfig(
        data=folder, run=folder / "run", labels=("A", "B"), blocks=(4, 5), ranks=(0, 0), embedding_size=2,
        batch=8, epochs=5, patience=5, learning_rate=3e-3, averaging=0.5,
    )  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return settings(tmp_path)


@pytest.fixture(scope="module")
def features() -> Features:
    """Maps that differ a little between the classes."""
    rng = np.random.default_rng(0)
    truth = np.arange(PICTURES) % 2
    given = rng.normal(size=(PICTURES, 4, 4, 512)) + 0.15 * rng.normal(size=512) * truth[:, None, None, None]
    lower = rng.normal(size=(PICTURES, 2 * 512 + 2 * 512)).astype(np.float32)
    return Features({}, [lower], [given.clip(0).astype(np.float16)])


@pytest.fixture(scope="module")
def examples(features: Features) -> Callable[[CachedViews], Examples]:
    rows = np.arange(PICTURES)
    train, validation = rows[:32], rows[32:]

    def make(views: CachedViews) -> Examples:
        return Examples(views, features.features, train, validation, rows % 2, np.ones(32), 2)

    return make


def table(config: TrainConfig) -> list[dict[str, str]]:
    with (config.run / "seed_0/epochs.csv").open() as file:
        return list(csv.DictReader(file))


def goes_on(
    config: TrainConfig, model: keras.Model, features: Features, examples: Callable[[CachedViews], Examples]
) -> None:
    """It trains, where it was refused otherwise; one batch shows it."""
    with pytest.raises(Killed):
        finetune(config, model, examples(Killable(config, features, after=1)), seed=0)


def same(one: Tuned, other: Tuned) -> None:
    np.testing.assert_allclose(one.logits, other.logits, rtol=1e-3, atol=1e-3)
    for name, value in one.weights.items():
        np.testing.assert_allclose(value, other.weights[name], rtol=1e-3, atol=1e-4, err_msg=name)


@dataclass(frozen=True)
class Done:
    """A fine-tuning that came to its end, what it found, and which batches were drawn for that."""

    config: TrainConfig
    tuned: Tuned
    drawn: int  # since it was killed, or in all
    before: dict[str, np.ndarray]  # the model's weights
    after: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def run(
    network: tuple[keras.Model, dict[str, np.ndarray]], features: Features, examples: Callable[[CachedViews], Examples]
) -> Callable[[TrainConfig], Done]:
    def run(config: TrainConfig) -> Done:
        load_weights(*network)  # as a process that starts finds it
        views = Killable(config, features)
        tuned = finetune(config, network[0], examples(views), seed=0)
        return Done(config, tuned, views.drawn, network[1], {k: v.copy() for k, v in weights_of(network[0]).items()})

    return run


@pytest.fixture(scope="module")
def unbroken(run: Callable[[TrainConfig], Done], tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run that was left alone."""
    return run(settings(tmp_path_factory.mktemp("unbroken")))


@pytest.fixture(scope="module", params=[2, 8 + 3, 16 + 1])  # in the first, the third and the fifth epoch of four each
def killed(
    request: pytest.FixtureRequest,
    network: tuple[keras.Model, dict[str, np.ndarray]],
    features: Features,
    examples: Callable[[CachedViews], Examples],
    run: Callable[[TrainConfig], Done],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[int, Done]:
    """The same run, after how many batches it was killed, and what it came to when it was started again."""
    config = settings(tmp_path_factory.mktemp("killed"))
    load_weights(*network)
    with pytest.raises(Killed):
        finetune(config, network[0], examples(Killable(config, features, after=request.param)), seed=0)
    return request.param, run(config)


def test_killed_run_ends_as_if_nothing_had_happened(killed: tuple[int, Done], unbroken: Done) -> None:
    batches, done = killed
    assert done.drawn == 20 - batches // 4 * 4
    same(done.tuned, unbroken.tuned)
    rows, expected = table(done.config), table(unbroken.config)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    for row, other in zip(rows, expected, strict=True):
        assert {n: float(v) for n, v in row.items()} == pytest.approx({n: float(v) for n, v in other.items()}, rel=1e-3)
    losses = [float(row["val_nll"]) for row in rows]
    assert losses.index(min(losses)) < 4  # so the last kill would have lost the best weights but for what was saved


def test_tensorboard_has_every_epoch_once_even_after_a_kill(killed: tuple[int, Done]) -> None:
    config = killed[1].config
    events = EventAccumulator(str(config.run / "seed_0/tensorboard"))
    events.Reload()
    rows = table(config)
    assert set(events.Tags()["scalars"]) == {"learning_rate", "loss", "accuracy", "val_nll", "val_accuracy"}
    for name in events.Tags()["scalars"]:
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [(float(row["epoch"]), pytest.approx(float(row[name]), rel=1e-5)) for row in rows]


def test_finished_seed_is_not_trained_again(unbroken: Done, run: Callable[[TrainConfig], Done]) -> None:
    again = run(unbroken.config)
    assert again.drawn == 0
    same(again.tuned, unbroken.tuned)
    folder = unbroken.config.run / "seed_0"
    assert {path.name for path in folder.iterdir()} == {TUNED, "epochs.csv", "tensorboard"}


def test_fine_tuning_leaves_the_model_as_it_was(unbroken: Done) -> None:
    assert all(np.array_equal(value, unbroken.before[name]) for name, value in unbroken.after.items())
    tuned = unbroken.tuned.weights
    changed = {name for name, value in tuned.items() if not np.array_equal(value, unbroken.before[name])}
    assert {name.split("/")[0] for name in changed} == {"block5_conv1", "block5_conv2", "block5_conv3", "head"}


def test_fine_tuning_stops_when_nothing_gets_better(
    config: TrainConfig, model: keras.Model, features: Features, examples: Callable[[CachedViews], Examples]
) -> None:
    impatient = replace(config, patience=1)
    finetune(impatient, model, examples(CachedViews(impatient, features)), seed=0)
    losses = [float(row["val_nll"]) for row in table(config)]
    assert len(losses) < config.epochs
    assert losses.index(min(losses)) == len(losses) - 2


def test_what_other_settings_began_is_not_gone_on_with(
    config: TrainConfig, model: keras.Model, features: Features, examples: Callable[[CachedViews], Examples]
) -> None:
    with pytest.raises(Killed):
        finetune(config, model, examples(Killable(config, features, after=6)), seed=0)
    assert (config.run / "seed_0" / PROGRESS).exists()
    other = replace(config, learning_rate=1e-4)
    with pytest.raises(ValueError, match="other settings"):
        finetune(other, model, examples(CachedViews(other, features)), seed=0)
    again = replace(config, target_accuracy=0.8, seeds=(0, 1))  # neither has to do with this seed's epochs
    goes_on(again, model, features, examples)


def test_another_start_is_not_gone_on_with(
    config: TrainConfig, model: keras.Model, features: Features, examples: Callable[[CachedViews], Examples]
) -> None:
    begun = replace(config, start=config.run.with_name("start"), fresh=True)
    weights = {name: value.copy() for name, value in weights_of(model).items()}
    with pytest.raises(Killed):
        finetune(begun, model, examples(Killable(begun, features, after=6)), seed=0)
    kernel = "block5_conv3/kernel"
    load_weights(model, weights | {kernel: weights[kernel] * 1.01})  # the same folder, trained anew in the meantime
    with pytest.raises(ValueError, match="first weights"):
        finetune(begun, model, examples(CachedViews(begun, features)), seed=0)
    load_weights(model, weights)
    moved = replace(begun, start=config.run.with_name("elsewhere"))
    goes_on(moved, model, features, examples)
