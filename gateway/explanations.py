"""Evidence beside an answer: what `explain=` may ask for, and how each kind is told."""

import hashlib
import io
from base64 import b64encode
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import __version__ as pillow_version
from PIL import features
from werkzeug.datastructures import MultiDict

from gateway.errors import BadRequest
from gateway.evidence import Evidence
from gateway.heatmaps import Heatmap
from gateway.neighbours import Neighbours
from gateway.replies import Prediction
from serving import contract
from serving.images import Picture

HEATMAP: Final = "heatmap"
HEATMAPS: Final = "heatmaps"
NEIGHBOURS: Final = "neighbours"
DECISION: Final = "decision"
PROVENANCE: Final = "provenance"
PREVIEW: Final = "preview"
KINDS: Final = (HEATMAP, HEATMAPS, NEIGHBOURS, DECISION, PROVENANCE, PREVIEW)
MAX_NEIGHBOURS: Final = 50
DEFAULT_NEIGHBOURS: Final = 5
MAX_HEATMAPS: Final = 32  # of one picture, so that a model of a thousand labels stays cheap
PREVIEW_SIDE: Final = 640  # pixels, the longest side of a preview
PREVIEW_QUALITY: Final = 85  # of JPEG: some 100 kB, and at most some 500 kB for noise

SCALE: Final = "linear: 0 is the lowest share of the culture's evidence, 255 the highest; one pixel for each position"
PIXELS: Final = (
    "serving.images: upright, sRGB on white, squashed to 224x224 with Pillow's bilinear filter, reducing_gap 3"
)


@dataclass(frozen=True)
class Wish:
    """What a request wants explained."""

    kinds: frozenset[str] = frozenset()
    culture: str | None = None  # whose heat map; the answered one when None
    neighbours: int = DEFAULT_NEIGHBOURS

    @property
    def signature(self) -> str:
        """The signature that knows enough; a decision's reason and a preview need no more than a plain answer."""
        return contract.EXPLAIN if self.kinds - {DECISION, PREVIEW} else contract.SERVING


def wish(arguments: MultiDict[str, str]) -> Wish:
    """What the query asks for: explain=heatmap,neighbours&culture=Japanese&k=10. Raises BadRequest."""
    kinds = frozenset(kind.strip() for text in arguments.getlist("explain") for kind in text.split(",") if kind.strip())
    if kinds - set(KINDS):
        raise BadRequest(f"explain knows {', '.join(KINDS)}, separated by commas")
    culture, count = arguments.get("culture"), arguments.get("k")
    if culture is not None and HEATMAP not in kinds:
        raise BadRequest("culture goes with explain=heatmap")
    if count is not None and NEIGHBOURS not in kinds:
        raise BadRequest("k goes with explain=neighbours")
    return Wish(kinds, culture, DEFAULT_NEIGHBOURS if count is None else _count(count))


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:5]) <= MAX_NEIGHBOURS):
        raise BadRequest(f"k is no whole number from 1 to {MAX_NEIGHBOURS}")
    return int(text)


def heatmap(prediction: Prediction, wanted: Wish) -> tuple[str, Heatmap]:
    """The culture whose map is wanted, and the map. Raises BadRequest for a culture that the model does not know."""
    culture = prediction.culture if wanted.culture is None else wanted.culture
    if culture not in prediction.cultures:
        raise BadRequest(f"the model knows no such culture; it knows {', '.join(sorted(prediction.cultures))}")
    return culture, Heatmap(_evidence(prediction).shares(culture))


def preview(picture: Picture) -> dict[str, Any]:
    """The upright picture as a small JPEG, for whoever cannot draw the file itself. Raises UndecodableImage."""
    small, file = picture.fitted(PREVIEW_SIDE), io.BytesIO()
    small.save(file, "JPEG", quality=PREVIEW_QUALITY)
    return {"jpeg": b64encode(file.getvalue()).decode(), "width": small.width, "height": small.height}


@dataclass(frozen=True)
class Seen:
    """A picture as it came, as the model saw it (uint8 [224, 224, 3]), and what the model said."""

    data: bytes
    pixels: NDArray[np.uint8]
    prediction: Prediction


class Explainer:
    """Tells what was wished for of one prediction."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours

    def explain(self, seen: Seen, model: dict[str, Any], wanted: Wish) -> dict[str, Any]:
        """The members of `explanation`, one for each kind but `preview`. `model`: name and version that answered."""
        prediction = seen.prediction
        told: dict[str, Any] = {}
        if DECISION in wanted.kinds:
            told[DECISION] = decision(prediction)
        if HEATMAP in wanted.kinds:
            told[HEATMAP] = _told_heatmap(*heatmap(prediction, wanted))
        if HEATMAPS in wanted.kinds:
            evidence, likeliest = _evidence(prediction), prediction.cultures[:MAX_HEATMAPS]
            told[HEATMAPS] = [_told_heatmap(culture, Heatmap(evidence.shares(culture))) for culture in likeliest]
        if NEIGHBOURS in wanted.kinds:
            told[NEIGHBOURS] = self._neighbours.of(prediction, model["version"], wanted.neighbours)
        if PROVENANCE in wanted.kinds:
            told[PROVENANCE] = self._provenance(seen, model)
        return told

    def _provenance(self, seen: Seen, model: dict[str, Any]) -> dict[str, Any]:
        """What `python -m training reproduce` needs to give the same answer, and to tell why if it does not."""
        return {
            "picture_sha256": hashlib.sha256(seen.data).hexdigest(),
            "pixels_sha256": hashlib.sha256(seen.pixels.tobytes()).hexdigest(),
            "pixels": PIXELS,
            "software": {"pillow": pillow_version, "libjpeg": features.version("jpg")},
            "model": model | dict(_evidence(seen.prediction).provenance),
            "index_version": self._neighbours.version(model["version"]),
        }


def decision(prediction: Prediction) -> dict[str, Any]:
    """Why the answer was accepted or not, in words and in numbers; the thresholds are the release's own."""
    least, greatest = prediction.thresholds or (None, None)
    return {
        "reason": _reason(prediction, least),
        "probability": round(prediction.probability, 6),
        "ood_score": _rounded(prediction.ood_score),
        "thresholds": {"least_probability": _rounded(least), "greatest_ood_score": _rounded(greatest)},
    }


def _reason(prediction: Prediction, least: float | None) -> str:
    if prediction.thresholds is None:
        return "this model has no thresholds: every answer counts as accepted"
    if prediction.decision == contract.OUT_OF_DISTRIBUTION:
        return "the picture is like none of the cultures that it knows: its ood_score is above the greatest accepted"
    chance = f"the likeliest culture has a probability of {prediction.probability:.2f}"
    if prediction.decision == contract.ABSTAINED:
        return f"{chance}, less than the {least:.2f} from which answers are accepted"
    return f"{chance}, at least the {least:.2f} from which answers are accepted, and the picture is of a known kind"


def _evidence(prediction: Prediction) -> Evidence:
    if prediction.evidence is None:
        raise ValueError("the model was asked for a prediction only")
    return prediction.evidence


def _told_heatmap(culture: str, heatmap: Heatmap) -> dict[str, Any]:
    return {
        "culture": culture,
        "png": b64encode(heatmap.png()).decode(),
        "scale": SCALE,
        "lowest": _rounded(heatmap.lowest),
        "highest": _rounded(heatmap.highest),
    }


def _rounded(value: float | None) -> float | None:
    """Six decimals; None for what JSON cannot say, such as an infinite threshold."""
    return None if value is None or not np.isfinite(value) else round(float(value), 6)
