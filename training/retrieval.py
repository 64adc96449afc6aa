"""`python -m training retrieval`: whether the neighbours that an index gives are of the same culture, the same artist.

Each object asks for its nearest among the others. Twice: as it is, and with everything by its own artist left out (of
its own source, where no artist is known), because an index that only finds the painter's other canvases tells little
about a picture that nobody has seen.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from serving.index import Index

BLOCK: Final = 256  # queries compared at once
KS: Final = (1, 5, 10)


@dataclass(frozen=True)
class Score:
    """Of one k; shares of 0 to 1. `artist` is None where an artist's own works are left out."""

    k: int
    culture: float  # mean share of the k that are of the query's culture
    vote: float  # share of queries whose culture is the most frequent of the k
    artist: float | None  # share of queries with a known artist of several works that find one of them among the k


def evaluate(
    embeddings: NDArray[np.float32],
    cultures: Sequence[str],
    groups: Sequence[str],
    *,
    leave_out: bool,
    ks: Sequence[int] = KS,
) -> list[Score]:
    """Scores for each k. `groups` names each object's artist, or what stands for it; empty where nothing is known."""
    names, culture = np.unique(cultures, return_inverse=True)
    group = np.unique(groups, return_inverse=True)[1]
    known = np.array([bool(name) for name in groups])
    several = known & (np.bincount(group)[group] > 1)
    found = np.concatenate(
        list(_nearest(embeddings, np.where(known, group, -1), max(ks), leave_out=leave_out))
    )  # [N, k]
    scores = []
    for k in ks:
        theirs = culture[found[:, :k]]  # [N, k]
        votes = np.stack([(theirs == c).sum(1) for c in range(len(names))], axis=1)  # [N, C]
        votes = votes + 0.5 * (theirs[:, :1] == np.arange(len(names)))  # the nearest decides between equals
        same_artist = (group[found[:, :k]] == group[:, None]).any(1)[several]
        scores.append(
            Score(
                k,
                float((theirs == culture[:, None]).mean()),
                float((votes.argmax(1) == culture).mean()),
                float(same_artist.mean()) if len(same_artist) and not leave_out else None,
            )
        )
    return scores


def _nearest(
    embeddings: NDArray[np.float32], group: NDArray[np.int64], k: int, *, leave_out: bool
) -> Iterator[NDArray[np.int64]]:
    """The k nearest of each row among the others, a block of rows at a time; group -1 leaves nothing but itself out."""
    for at in range(0, len(embeddings), BLOCK):
        rows = np.arange(at, min(at + BLOCK, len(embeddings)))
        similar = embeddings[rows] @ embeddings.T  # [b, N]
        similar[np.arange(len(rows)), rows] = -np.inf
        if leave_out:
            similar[(group[rows][:, None] == group) & (group >= 0)] = -np.inf
        best = np.argpartition(-similar, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(similar, best, 1), axis=1)
        yield np.take_along_axis(best, order, 1)


def table(index: Index) -> str:
    """Both evaluations of an index, in Markdown, with what chance would give."""
    objects = [index.object(i) for i in range(index.facts.objects)]
    cultures = [each.culture for each in objects]
    embeddings = np.asarray(index.embeddings)
    shares = np.unique(cultures, return_counts=True)[1] / len(objects)
    lines = [
        f"{len(objects):,} objects, index {index.facts.version}, model version {index.facts.model_version}; "
        f"chance gives {(shares**2).sum():.0%} of the same culture, the most frequent culture is {shares.max():.0%}",
        "",
        "| left out | k | of the k, same culture | most frequent culture is right | same artist among the k |",
        "|---|---|---|---|---|",
    ]
    artists = [each.artist for each in objects]
    groups = [each.artist or f"source {each.source}" for each in objects]
    for leave_out, names, what in ((False, artists, "itself"), (True, groups, "its artist (or source)")):
        for score in evaluate(embeddings, cultures, names, leave_out=leave_out):
            artist = "" if score.artist is None else f"{score.artist:.0%}"
            lines.append(f"| {what} | {score.k} | {score.culture:.0%} | {score.vote:.0%} | {artist} |")
    return "\n".join(lines)


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `retrieval`."""
    parser = commands.add_parser(
        "retrieval",
        help="measure an index: same culture, same artist among the k nearest",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--index", type=Path, required=True, help="an index's own folder, e.g. indexes/1")
    parser.set_defaults(run=lambda options: print(table(Index(options.index))))
