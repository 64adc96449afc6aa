"""The promise between training, model server and gateway: names, dtypes and shapes. Standard library only.

`training.export` reloads every SavedModel it writes and compares it with this module; the gateway compares every reply.
"""

from dataclasses import dataclass
from typing import Final

MODEL_NAME: Final = "culture"
IMAGE_SIZE: Final = 224  # pixels, both sides: what VGG16 was made for (Simonyan and Zisserman 2014, section 2.1)

SERVING: Final = "serving_default"
EXPLAIN: Final = "explain"

INPUT: Final = "images"
PROBABILITIES: Final = "probabilities"
LABELS: Final = "labels"
DECISION: Final = "decision"
OOD_SCORE: Final = "ood_score"
THRESHOLDS: Final = "thresholds"
EMBEDDING: Final = "embedding"
HEATMAPS: Final = "heatmaps"
PROVENANCE: Final = "provenance"

# Values of DECISION. The servable decides, because only the model knows its thresholds.
ACCEPTED: Final = "accepted"
ABSTAINED: Final = "abstained"
OUT_OF_DISTRIBUTION: Final = "out_of_distribution"
DECISIONS: Final = (ACCEPTED, ABSTAINED, OUT_OF_DISTRIBUTION)


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name (or "string") and shape of one tensor; `None` is any size, dimension 0 is the batch."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


IMAGES: Final = TensorSpec(INPUT, "uint8", (None, IMAGE_SIZE, IMAGE_SIZE, 3))  # RGB

SERVING_OUTPUTS: Final = (
    TensorSpec(PROBABILITIES, "float32", (None, None)),  # [N, C], calibrated, each row sums to one
    TensorSpec(LABELS, "string", (None, None)),  # [N, C], the same row N times: batching needs the batch first
    TensorSpec(DECISION, "string", (None,)),  # [N], one of DECISIONS
    TensorSpec(OOD_SCORE, "float32", (None,)),  # [N], higher is stranger
    TensorSpec(THRESHOLDS, "float32", (None, 2)),  # [N, 2]: least top probability accepted, greatest ood_score known
    TensorSpec(EMBEDDING, "float32", (None, None)),  # [N, D], unit length: every picture is compared with the reference
)
EXPLAIN_OUTPUTS: Final = (
    *SERVING_OUTPUTS,
    TensorSpec(HEATMAPS, "float32", (None, None, None, None)),  # [N, h, w, C]: each position's share of the logit
    TensorSpec(PROVENANCE, "string", (None,)),  # [N], the same JSON object N times: release, calibration, preprocessing
)
SIGNATURES: Final = {SERVING: SERVING_OUTPUTS, EXPLAIN: EXPLAIN_OUTPUTS}
# A servable of somebody else's may leave the others of SERVING_OUTPUTS out: then every answer counts as accepted.
# PROVENANCE is for people and for `python -m training reproduce`: the gateway passes it on unread.
REQUIRED_OUTPUTS: Final = (PROBABILITIES, LABELS)
