"""Drawn pictures in three "cultures", with artists and books, enough of them to be split and trained on in a minute."""

import csv
import json
from colorsys import hsv_to_rgb
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.config import TrainConfig, to_values

LABELS = ("Checked", "Ringed", "Striped")


def write_toy(data: Path, *, of_each: int = 16) -> Path:
    """A data folder: of each culture half by four artists, half from books of two pictures."""
    rows = []
    for number, label in enumerate(LABELS):
        (data / "images" / label).mkdir(parents=True)
        for i in range(of_each):
            file = f"images/{label}/{i}.jpg"
            drawn = _draw(label, np.random.default_rng([number, i]))
            Image.fromarray(drawn).save(data / file, quality=90)
            named = i < of_each // 2
            artist, source = (f"{label} painter {i % 4}", "site") if named else ("", f"{label} book {i // 2}")
            rows.append((file, label, source, artist, "painting" if i % 2 else "vase"))
    with (data / "metadata.csv").open("w", newline="") as file_:
        writer = csv.writer(file_)
        writer.writerow(("file", "culture", "source_repo", "artist", "object_type"))
        writer.writerows(rows)
    return data


def write_toml(path: Path, config: TrainConfig) -> Path:
    """The config as the file that a data scientist would write: JSON's values are TOML's."""
    values = to_values(config)
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if name not in tables]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path.write_text("\n".join(lines) + "\n")
    return path


def _draw(label: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """uint8 [120, 160, 3]: checks, rings or stripes, mostly the label's, of a random width, turn and place."""
    y, x = np.mgrid[:120, :160] - rng.uniform(20, 100, (2, 1, 1))
    turn, width = rng.uniform(0, np.pi), rng.uniform(7, 16)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    drawn = label if rng.random() < 0.75 else str(rng.choice(LABELS))  # cultures borrow from each other
    bands = {"Checked": u // width + v // width, "Ringed": np.hypot(x, y) // width, "Striped": u // width}[drawn]
    hue = LABELS.index(label) / len(LABELS) + rng.normal(0, 0.12)  # a culture's colour, mostly
    colours = [[255 * value for value in hsv_to_rgb(hue % 1, rng.uniform(0.3, 1), value)] for value in (0.9, 0.4)]
    result: NDArray[np.uint8] = np.array(colours).astype(np.uint8)[bands.astype(int) % 2]
    return result
