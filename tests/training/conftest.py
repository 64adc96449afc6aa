"""A data folder of two dozen drawn pictures, and one run on it that several tests look at."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.fake_met import FakeMet
from training.augment import Augmentation
from training.config import TrainConfig

LABELS = ("Checked", "Plain", "Striped")


def draw(label: str, rng: np.random.Generator) -> Image.Image:
    y, x = np.mgrid[:120, :160]
    pattern = {"Checked": (x // 12 + y // 12) % 2, "Plain": x * 0, "Striped": x // 9 % 2}[label]
    values = pattern[..., None] * rng.integers(40, 160, 3) + rng.integers(0, 90, 3) + rng.integers(0, 12, (120, 160, 1))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def drawn_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three cultures of four artists and two books each, and a culture that is no label."""
    data, rng, rows = tmp_path_factory.mktemp("artworks"), np.random.default_rng(0), []
    for label in (*LABELS, "Unknown"):
        for i in range(12 if label in LABELS else 8):
            file = f"images/{label}/{i}.png"
            (data / file).parent.mkdir(parents=True, exist_ok=True)
            draw(label if label in LABELS else "Plain", rng).save(data / file)
            artist = f"{label} painter {i % 4}" if i < 8 else ""
            rows.append({"file": file, "culture": label, "source_repo": "site" if i < 8 else f"{label} book {i % 2}",
                         "artist": artist, "object_type": "painting" if i % 2 else "vase"})  # fmt: skip
    with (data / "metadata.csv").open("w", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return data


@pytest.fixture(scope="session")
def tiny_config(drawn_data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainConfig:
    """The real network with random weights, read sparsely, so that a run takes seconds."""
    folder = tmp_path_factory.mktemp("work")
    return TrainConfig(
        data=drawn_data,
        prepared=folder / "prepared",
        run=folder / "run",
        labels=LABELS,
        base_weights="random",
        random_share=0.1,
        artist_share=0.15,
        source_share=0.1,
        blocks=(4, 5),
        ranks=(0, 4),
        embedding_size=3,
        views=2,
        augmentation=Augmentation(side=64),
        consistency=0.3,
        batch=8,
        epochs=1,
        patience=1,
        strangers=8,
    )


@pytest.fixture(scope="session")
def finished_run(tiny_config: TrainConfig) -> TrainConfig:
    """Prepared, fitted and evaluated, and then solved again on everything in `final`."""
    from training.evaluate import evaluate
    from training.fit import fit
    from training.prepare import prepare

    prepare(tiny_config)
    fit(tiny_config)
    evaluate(tiny_config.run)
    fit(replace(tiny_config, run=tiny_config.run.with_name("final"), measured_by=tiny_config.run))
    return tiny_config


@pytest.fixture(scope="session")
def fresh_run(finished_run: TrainConfig) -> TrainConfig:
    """The same pictures, but fine-tuned from block 4 on, on new pixels in every batch, and views that are examples.

    Other cultures are learnt from as well.
    """
    from training.fit import fit

    config = replace(finished_run, run=finished_run.run.with_name("fresh"), cut=4, fresh=True, batch=2,
                     averaging=0.5, consistency=0.0, outside=True)  # fmt: skip
    fit(config)
    return config


@pytest.fixture
def met() -> Iterator[FakeMet]:
    """The Met's catalogue, API and pictures."""
    with FakeMet() as server:
        yield server
