"""`python -m training decisions`: how often a run accepts, abstains, calls a picture a stranger, and whether rightly.

Asked about validation pictures, and about strangers: art of other cultures, photographs, pages of text, noise,
patterns. The released model has seen the validation pictures, so the run that vouches for it is asked.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from serving import contract

if TYPE_CHECKING:
    from training.answers import Answers, ReleasedModel
    from training.records import Record

DRAWN: Final = 100  # of the strangers that are drawn
_DRAWN_KINDS: Final = ("noise", "gradients", "pages of text", "checks", "charts")  # as training.strangers takes turns


@dataclass(frozen=True)
class Kind:
    """What was answered about pictures of one kind. `right` is None where no answer could be."""

    name: str
    decisions: NDArray[np.str_]  # [N]
    right: NDArray[np.bool_] | None  # [N]: the likeliest culture is the true one

    def share(self, decision: str) -> float:
        """How often this was decided."""
        return float((self.decisions == decision).mean())

    def accuracy(self, decision: str) -> float | None:
        """How often the likeliest culture was right when this was decided; None when it never was or never could be."""
        chosen = self.decisions == decision
        return None if self.right is None or not chosen.any() else float(self.right[chosen].mean())


def kind_of(name: str, answers: "Answers", labels: Sequence[str], truth: Sequence[str] | None) -> Kind:
    """The kind from the model's answers to it; `truth` is each picture's culture."""
    decisions = np.array([decision.decode() for decision in answers[contract.DECISION]])
    if truth is None:
        return Kind(name, decisions, None)
    told = np.array(labels)[answers[contract.PROBABILITIES].argmax(1)]
    return Kind(name, decisions, told == np.array(truth))


def measure(
    model: "ReleasedModel",
    records: Sequence["Record"],
    pixels: NDArray[np.uint8],
    photos: Sequence[NDArray[np.uint8]],
    *,
    pictures: int,
) -> list[Kind]:
    """Every kind there is, at most `pictures` of each part of the validation pictures, and all of `photos`."""
    from training.records import ARTIST, OTHER, RANDOM, SOURCE
    from training.strangers import drawn

    rng = np.random.default_rng(0)
    labels, kinds = model.release.labels, []
    for name, part in (("known artists and sources", RANDOM), ("new artists", ARTIST), ("new sources", SOURCE),
                       ("art of other cultures", OTHER)):  # fmt: skip
        rows = np.flatnonzero([record.part == part for record in records])
        rows = np.sort(rng.permutation(rows)[:pictures])
        if len(rows):
            truth = None if part == OTHER else [records[int(i)].culture for i in rows]
            kinds.append(kind_of(name, model.ask(np.asarray(pixels[rows])), labels, truth))
    answers = model.ask(drawn(DRAWN))
    for turn, name in enumerate(_DRAWN_KINDS):
        kinds.append(
            kind_of(name, {key: value[turn :: len(_DRAWN_KINDS)] for key, value in answers.items()}, labels, None)
        )
    if photos:
        kinds.append(kind_of("photographs", model.ask(np.stack(photos)), labels, None))
    return kinds


def table(kinds: Sequence[Kind]) -> str:
    """The README's table: of each kind the share of each decision, and in brackets how often the culture was right."""
    lines = [
        "| pictures | n | accepted (of them right) | abstained (of them right) | out of distribution |",
        "|---|---|---|---|---|",
    ]
    for kind in kinds:
        cells = [_cell(kind, decision) for decision in contract.DECISIONS]
        lines.append(f"| {kind.name} | {len(kind.decisions)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(kind: Kind, decision: str) -> str:
    accuracy = kind.accuracy(decision)
    return f"{kind.share(decision):.0%}" + ("" if accuracy is None else f" ({accuracy:.0%})")


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `decisions`."""
    parser = commands.add_parser(
        "decisions",
        help="measure when a run accepts, abstains, or calls a picture out of distribution",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--run", dest="folder", type=Path, required=True, help="what `fit` wrote")
    parser.add_argument("--pictures", type=int, default=400, help="at most so many of each part (default: %(default)s)")
    parser.add_argument(
        "--photographs",
        type=Path,
        metavar="FOLDER",
        help="everyday photographs, in any depth of folders (default: the few that scikit-image and scikit-learn ship)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> None:
    from training.answers import ReleasedModel, validation_of
    from training.runs import CHECKPOINT
    from training.strangers import photographs, photographs_in

    photos = photographs_in(options.photographs) if options.photographs else photographs()
    records, pixels = validation_of(options.folder)
    model = ReleasedModel(options.folder / CHECKPOINT, [contract.PROBABILITIES, contract.DECISION])
    print(table(measure(model, records, pixels, photos, pictures=options.pictures)))
