"""`python -m training reproduce`: give an answer again, on another machine, from the picture and the public release.

ANSWER is the JSON of `POST /v1/predict?explain=provenance` (with heatmap, neighbours or decision too, if you like).
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from serving import contract
from serving.images import decode
from serving.index import Index

if TYPE_CHECKING:
    from training.answers import Answers, ReleasedModel

# Of a probability: a model server may compute in bfloat16, as `make run` does where the processor can.
TOLERANCE: Final = 0.03


class Differs(RuntimeError):
    """The answer could not be given again."""


@dataclass(frozen=True)
class Check:
    """One thing compared."""

    what: str
    same: bool
    detail: str

    def __str__(self) -> str:
        return f"{'same   ' if self.same else 'DIFFERS'}  {self.what}: {self.detail}"


def reproduce(
    answer: dict[str, Any],
    picture: bytes,
    model: "ReleasedModel",
    *,
    index: Index | None = None,
    tolerance: float = TOLERANCE,
) -> Iterator[Check]:
    """Everything in the answer that can be compared, in the order in which it comes about. Raises ValueError."""
    digest = hashlib.sha256(picture).hexdigest()
    prediction = _prediction(answer, digest)
    told = prediction["explanation"]["provenance"]
    yield Check("picture", told["picture_sha256"] == digest, f"SHA-256 {digest[:16]}...")
    pixels = decode(picture)
    seen = hashlib.sha256(pixels.tobytes()).hexdigest()
    versions = ", ".join(f"{name} {version}" for name, version in told["software"].items())
    yield Check("pixels", told["pixels_sha256"] == seen, f"SHA-256 {seen[:16]}..., answered with {versions}")
    yield Check("release", told["model"].get("release_sha256") == model.sha256, f"SHA-256 {model.sha256[:16]}...")
    yield from _answers(prediction, model.ask(pixels[np.newaxis]), model.release.labels, tolerance, index)


def _prediction(answer: dict[str, Any], digest: str) -> dict[str, Any]:
    """The prediction about this picture; the only one if there is one only."""
    try:
        told = [each for each in answer["predictions"] if "provenance" in each.get("explanation", {})]
        mine = [each for each in told if each["explanation"]["provenance"]["picture_sha256"] == digest]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("this is no answer of POST /v1/predict") from error
    if not told:
        raise ValueError("the answer has no provenance: ask for it with ?explain=provenance")
    if not mine and len(told) > 1:
        raise ValueError("none of the answers is about this picture")
    found: dict[str, Any] = (mine or told)[0]
    return found


def _answers(
    prediction: dict[str, Any], answers: "Answers", labels: tuple[str, ...], tolerance: float, index: Index | None
) -> Iterator[Check]:
    probabilities = dict(zip(labels, answers[contract.PROBABILITIES][0].tolist(), strict=True))
    off = max(abs(probabilities.get(each["culture"], 0.0) - each["probability"]) for each in prediction["top"])
    yield Check("probabilities", off <= tolerance, f"differ by at most {off:.4f}, allowed are {tolerance:g}")
    best = max(probabilities, key=lambda culture: probabilities[culture])
    yield Check("culture", best == prediction["culture"], best)
    decision = answers[contract.DECISION][0].decode()
    yield Check("decision", decision == prediction["decision"], decision)
    explanation = prediction["explanation"]
    if "heatmap" in explanation:
        told = explanation["heatmap"]
        shares = answers[contract.HEATMAPS][0, ..., labels.index(told["culture"])]
        span = float(shares.max() - shares.min())
        off = max(abs(told["lowest"] - float(shares.min())), abs(told["highest"] - float(shares.max()))) / span
        yield Check("heat map", off <= 2 * tolerance, f"its ends differ by {off:.1%} of its span")
    if index and explanation.get("neighbours", {}).get("objects"):
        found = index.nearest(answers[contract.EMBEDDING][0], len(explanation["neighbours"]["objects"]))
        told_ids = [(each["source"], each["object_id"]) for each in explanation["neighbours"]["objects"]]
        same = sorted(told_ids) == sorted((each.object.source, each.object.object_id) for each in found)
        yield Check("neighbours", same, f"index {index.facts.version}")


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", release: Path) -> None:
    """Register `reproduce`."""
    parser = commands.add_parser(
        "reproduce",
        help="give an answer again from its provenance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("answer", type=Path, help="the service's JSON")
    add("picture", type=Path, help="the picture that was sent")
    add("--release", type=Path, default=release, help="folder with model.safetensors (default: %(default)s)")
    add("--index", type=Path, help="the index's own folder, to compare neighbours too")
    add("--tolerance", type=float, default=TOLERANCE, help="of a probability (default: %(default)s)")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from training.answers import ReleasedModel

    outputs = [contract.PROBABILITIES, contract.DECISION, contract.HEATMAPS, contract.EMBEDDING]
    model = ReleasedModel(options.release, outputs)
    index = Index(options.index) if options.index else None
    answer = json.loads(options.answer.read_text(encoding="utf-8"))
    checks = list(reproduce(answer, options.picture.read_bytes(), model, index=index, tolerance=options.tolerance))
    print("\n".join(map(str, checks)))
    wrong = [check.what for check in checks if not check.same]
    if wrong:
        raise Differs(f"not reproduced: {', '.join(wrong)}")
