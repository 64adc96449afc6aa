"""What signature `explain` says beside the prediction, held against serving.contract."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving import contract

REQUIRED: Final = (contract.EMBEDDING, contract.HEATMAPS)
MAX_SIDE: Final = 256  # positions of a heat map, each side


@dataclass(frozen=True)
class Evidence:
    """Of one picture."""

    labels: tuple[str, ...]
    heatmaps: NDArray[np.float32]  # [h, w, C], in the order of `labels`; over all positions they sum to the logits
    provenance: Mapping[str, Any] = field(default_factory=dict)  # what the servable says of itself, unread

    def shares(self, label: str) -> NDArray[np.float32]:
        """Each position's share of the label's logit, [h, w]."""
        shares: NDArray[np.float32] = self.heatmaps[..., self.labels.index(label)]
        return shares


def read(outputs: Mapping[str, NDArray[Any]], labels: tuple[str, ...]) -> list[Evidence]:
    """The evidence for each row of a reply whose dtypes, ranks and rows have been checked. Raises ValueError."""
    heatmaps = outputs[contract.HEATMAPS]
    _, height, width, classes = heatmaps.shape
    if classes != len(labels) or not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise ValueError(f"heat maps of shape {heatmaps.shape} for {len(labels)} labels")
    if not np.isfinite(heatmaps).all():
        raise ValueError("a heat map is not finite")
    made_by = outputs.get(contract.PROVENANCE)
    provenances = [{}] * len(heatmaps) if made_by is None else [_object(text) for text in made_by]
    return [Evidence(labels, maps, provenance) for maps, provenance in zip(heatmaps, provenances, strict=True)]


def _object(text: bytes) -> dict[str, Any]:
    """A JSON object that can be told again: without NaN, infinities (1e999) and halves of characters."""
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError("provenance is nested too deep") from error
    if not isinstance(found, dict):
        raise ValueError("provenance is no JSON object")
    return found
