"""The released checkpoint, for Keras on any backend: `model.safetensors`, nearly all float16, and `release.json`."""

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from serving.contract import IMAGE_SIZE
from training.layers import LOGITS, WIDE
from training.model import build_model, load_weights
from training.shape import ModelShape

WEIGHTS: Final = "model.safetensors"
FACTS: Final = "release.json"
MAX_BYTES: Final = 30_000_000  # what a checkpoint in git may weigh
# What standardises features stays float32: 11 KB more, and features of all sizes come out as they were trained.
PRECISE: Final = ("head/shift", "head/scale")
# No picture's temperature is lower or higher. Below 1 is usual: the head's penalties keep its logits small.
TEMPERATURES: Final = (0.2, 8.0)


@dataclass(frozen=True)
class Calibration:
    """What turns logits into an honest answer.

    Each picture's logits are divided by a temperature of its own before the softmax: the farther its first logit is
    ahead of the second, the lower.
    """

    temperature: float = 1.0  # of a picture whose first two logits are the same
    margin_weight: float = 0.0  # added to its logarithm per unit between the first two logits
    least_probability: float = 0.0  # top probability below this: abstained
    greatest_ood: float = float("inf")  # ood_score above this: out of distribution

    def temperatures(self, logits: Any) -> Any:
        """Logits [N, C > 1], a tensor or an array -> WIDE [N]."""
        first = ops.top_k(ops.cast(logits, WIDE), 2)[0]
        slope = self.margin_weight * (first[:, 0] - first[:, 1])
        return ops.clip(ops.exp(math.log(self.temperature) + slope), *TEMPERATURES)

    def probabilities(self, logits: Any) -> Any:
        """Of each class, WIDE [N, C]: a softmax in bfloat16 gives probabilities that add up to 0.998."""
        temperatures = ops.expand_dims(self.temperatures(logits), -1)
        return ops.softmax(ops.cast(logits, WIDE) / temperatures, axis=-1)


@dataclass(frozen=True)
class Release:
    """A checkpoint with all that is known about it."""

    version: int
    labels: tuple[str, ...]
    shape: ModelShape
    calibration: Calibration
    weights: dict[str, NDArray[Any]] = field(repr=False)
    facts: dict[str, Any] = field(default_factory=dict)  # metrics, data, recorded answers: for people and tests


def save_release(release: Release, directory: Path) -> None:
    """Write both files. Raises ValueError when the checkpoint is heavier than MAX_BYTES."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / WEIGHTS
    dtypes = {name: np.float32 if name in PRECISE else np.float16 for name in release.weights}
    save_file({name: np.ascontiguousarray(release.weights[name], dtype) for name, dtype in dtypes.items()}, path)
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} weighs {path.stat().st_size:,} bytes, more than {MAX_BYTES:,}")
    facts = {
        "version": release.version,
        "labels": list(release.labels),
        "shape": asdict(release.shape),
        "calibration": asdict(release.calibration),
        "sha256": digest(path),
        **release.facts,
    }
    (directory / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    path.chmod((directory / FACTS).stat().st_mode)  # safetensors writes for its owner alone; others serve the model


def load_release(directory: Path) -> Release:
    """Read both files.

    Raises ValueError when the weights are not those that release.json names, or another version of Whence wrote it.
    """
    facts = json.loads((directory / FACTS).read_text())
    if digest(directory / WEIGHTS) != facts.pop("sha256"):
        raise ValueError(f"{directory / WEIGHTS} is not the file that {FACTS} describes")
    sizes: dict[str, Any] = {n: tuple(x) if isinstance(x, list) else x for n, x in facts.pop("shape").items()}
    try:
        shape, calibration = ModelShape(**sizes), Calibration(**facts.pop("calibration"))
    except TypeError as error:
        raise ValueError(f"{directory} was made by another version of Whence: fit again ({error})") from error
    return Release(
        version=facts.pop("version"),
        labels=tuple(facts.pop("labels")),
        shape=shape,
        calibration=calibration,
        weights=load_file(directory / WEIGHTS),
        facts=facts,
    )


def build_release_model(release: Release, *, precision: str = "float32") -> keras.Model:
    """The network with the release's weights; its convolutions compute in `precision`."""
    model = build_model(release.shape, precision=precision)
    load_weights(model, release.weights)
    return model


def probe_answers(release: Release) -> NDArray[np.float64]:
    """Probabilities [4, C] for `probe_images`: what a release records of itself."""
    found = build_release_model(release).predict_on_batch(probe_images().astype(np.float32))
    return np.asarray(release.calibration.probabilities(found[LOGITS]))


def probe_images() -> NDArray[np.uint8]:
    """Four generated pictures, uint8 [4, 224, 224, 3], the same on every machine: waves, rings, checks and a ramp.

    A release records its answers to them, so that a re-export can be compared without any private picture.
    """
    y, x = np.mgrid[:IMAGE_SIZE, :IMAGE_SIZE].astype(np.int64)
    waves = (x * x // 97 + y * 3) % 256
    rings = ((x - 112) ** 2 + (y - 96) ** 2) // 40 % 256
    checks = ((x // 14 + y // 9) % 2) * 190 + (x * y // 331) % 60
    ramp = (x + y) * 255 // (2 * IMAGE_SIZE - 2)
    channels = [waves, rings, checks, ramp]
    pictures = [np.stack([channels[(i + k) % 4] // (k + 1) + 40 * k for k in range(3)], -1) for i in range(4)]
    return np.stack(pictures).clip(0, 255).astype(np.uint8)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal: what names a release beyond its version number."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
