"""What a release answered on the pictures it was measured on: the yardstick for what it answers today.

`python -m training reference` writes it beside the release; the gateway compares what it sees with it. It holds shares
and means only: nothing of any picture.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class BadReference(ValueError):
    """The file is no usable reference. The message says why."""


@dataclass(frozen=True)
class Reference:
    """Shares add up to one. Distances are of embeddings of unit length."""

    model_version: int
    release_sha256: str
    about: str  # which pictures these were, for people
    pictures: int
    cultures: dict[str, float]  # share of answers for each culture
    decisions: dict[str, float]  # share of each decision
    confidence: float  # mean probability of the likeliest culture
    centroid: tuple[float, ...]  # mean embedding
    distance: float  # mean cosine distance of a picture to the centroid, 0 to 2
    window: int  # pictures over which a running mean embedding is taken
    centroid_limit: float  # a running mean of such pictures is this far from the centroid once in a thousand times

    @classmethod
    def load(cls, path: Path) -> "Reference":
        """Read it. Raises BadReference."""
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            found = cls(**facts | {"centroid": tuple(facts["centroid"])})
            numbers = [
                found.confidence,
                found.distance,
                found.centroid_limit,
                *found.centroid,
                *found.cultures.values(),
            ]
            if not all(math.isfinite(number) for number in [*numbers, *found.decisions.values()]) or found.window < 1:
                raise ValueError("a number is not finite")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadReference(f"{path} is no reference of a release: {error}") from error
        return found

    def save(self, path: Path) -> None:
        """Write it, readable by people."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class RunningMean:
    """A mean of embeddings that forgets: plain over the first `window`, then exponential with weight 1 / `window`."""

    def __init__(self, window: int, dimensions: int) -> None:
        self._window = window
        self._mean = np.zeros(dimensions)
        self._count = 0

    @property
    def full(self) -> bool:
        """Whether it has seen a whole window, and means something."""
        return self._count >= self._window

    def add(self, embedding: NDArray[np.float32]) -> None:
        """See one more, [D]."""
        self._count += 1
        self._mean += (embedding - self._mean) / min(self._count, self._window)

    def distance(self, centroid: NDArray[np.float64]) -> float:
        """Euclidean distance to `centroid`, [D]."""
        return float(np.linalg.norm(self._mean - centroid))
