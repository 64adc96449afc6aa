"""The two texts beside a released checkpoint: what the model is good for, and what it was made from."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from training.checkpoint import TEMPERATURES, Release
from training.layers import UNUSUAL
from training.report import classes_table, differences_table, leaks_table, parts_table

Row = dict[str, Any]

MEASURED_BEFORE: Final = """\
The run was then repeated on all labelled pictures, validation parts too, with the same settings. No picture is left to
measure that with: the numbers, the temperatures and the thresholds are those of the run before, which had not seen the
validation parts."""
MEASURED_ITSELF: Final = "The numbers are those of the released weights, on pictures that they were not trained on."

LIMITS: Final = """\
## Intended use and limits

A first guess for a person who looks further: "resembles objects catalogued as ...". Not for attribution, valuation,
customs, or claims of origin.

- The training pictures are of **mixed sources; the label is the artist's nationality or the object's culture** as a
  repository, a book or its caption has it, not the Metropolitan Museum's Culture field. See DATA.md.
- Medium stands in for culture: Greek is vases and sculpture, Japanese mostly prints, Europeans mostly paintings. A
  French porcelain is not told from an Italian one by what makes it French.
- Period stands in for nationality among Europeans, who are confused most.
- Many pictures are black-and-white plates of old books; colour and greyscale are reported apart above.
- It knows eight cultures and nothing of the rest of the world; an Egyptian, Dutch or Iranian work gets one of these.

## Before production

Train it again on Met Open Access: `python -m training collect`, then `prepare`, `fit`, `evaluate`, `release`. At
least 1,500 objects a class, split by artist and accession group; the temperatures and the thresholds must be found
again on the new pictures, and the leak report read before the accuracy.
"""

TRAPS: Final = """\
## Known traps

- Labels of painters are nationalities from a hand-written table; of book plates, the book's subject or the caption.
  Expect 1-8 % wrong, most among Chinese paintings.
- File geometry gives classes away (one source is 224 x 224 throughout): pictures are squashed, never padded, and the
  leak report says how far geometry alone gets.
- A book is a style of reproduction: validate by source, not by picture.
- Black-and-white plates are unevenly spread over the classes, so grey itself hints at a class.
- Few artists per class (Spanish 18, Japanese 33): artist-disjoint numbers have wide intervals.
"""


def model_card(release: Release, evaluation: Row) -> str:
    """README.md of the release."""
    shape, facts = release.shape, release.facts
    baselines = "; ".join(
        f"{name}: accuracy {row['accuracy']:.3f}, NLL {row['nll']:.2f}" for name, row in facts["baselines"].items()
    )
    stages = "; ".join(f"{name}: {row['accuracy']:.3f}, {row['nll']:.3f}" for name, row in facts["stages"].items())
    return f"""\
# Model card: Whence, release {release.version}

Tells {len(release.labels)} cultures apart: {", ".join(release.labels)}.
Released {facts["released"]}, trained on {facts["trained_on"]:,} pictures.

## What it is

VGG16 without its top (Simonyan and Zisserman 2014; ImageNet weights by the Visual Geometry Group, CC BY 4.0) at 224 x
224, squashed. A linear head reads {shape.features:,} numbers: mean and standard deviation of every channel of blocks
{_list(shape.blocks)}, and the covariances of their {_list(shape.ranks)} strongest directions, each covariance c as
c / sqrt(|c| + 0.05). All of these are sums over positions, so a heat map is exact: its cells add up to the logit.
The embedding is {shape.embedding_size} principal directions of block {shape.blocks[-1]}'s means, of unit length.

## What it is worth

{MEASURED_BEFORE if facts["measured_on_other_weights"] else MEASURED_ITSELF}
Random: known artists and sources. Artist-disjoint: artists that training did not know. Source-disjoint: books and sites
that training did not know. Intervals are 95 %. The temperatures of each half of the validation pictures were found on
the other half.

{_lines(parts_table(evaluation["model"]))}
{_comparisons(facts["comparisons"])}
Beside it, on all validation pictures: {baselines}.
Stages of the run (accuracy, NLL; the one with the least NLL is taken): {stages}.

{_lines(classes_table(evaluation["per_class"]))}

{_lines(leaks_table(evaluation["leaks"]))}

## When it says nothing

{_silence(release)}

{LIMITS}"""


def _comparisons(comparisons: dict[str, dict[str, Row]]) -> str:
    texts = [
        f"""
Against {name}, on the same pictures: how much higher the accuracy is, and the NLL (lower is better). The 95 % intervals
are of a bootstrap that draws whole artists and sources; where 0 lies outside, the difference is no chance.

{_lines(differences_table(differences))}
"""
        for name, differences in comparisons.items()
    ]
    return "".join(texts)


def _silence(release: Release) -> str:
    calibration, abstention = release.calibration, release.facts["abstention"]
    strangers = "; ".join(
        f"{name} ({row['count']}): {row['distance']:.2f}, {row['called out of distribution']:.0%} called so"
        for name, row in release.facts["strangers"].items()
    )
    return f"""\
Each picture's logits are divided by a temperature of its own before the softmax,
{calibration.temperature:.3f} * exp({calibration.margin_weight:+.4f} * margin {calibration.ood_weight:+.3f} * ood_score)
between {TEMPERATURES[0]} and {TEMPERATURES[1]}: the farther the first logit is ahead of the second (the margin), the
surer the answer, and the stranger the picture, the less sure. The three numbers are those of the least NLL on the
validation pictures.

An answer is accepted from a top probability of {calibration.least_probability:.2f} on. Of the artist- and
source-disjoint pictures, {abstention["coverage"]:.1%} get one, and {abstention["accuracy"]:.0%} of these answers are \
right (asked for: {abstention["target"]:.0%}). The others are `abstained`.

`ood_score` reads means and deviations of the lowest block alone: one minus the cosine between the picture and the
nearest of {release.shape.centres} centres of the training pictures (k-means in their {release.shape.axes} strongest
directions), plus {UNUSUAL} times how many deviations these numbers are off (root mean square). Above \
{calibration.greatest_ood:.3f} the answer is
`out_of_distribution`.
Area under the ROC curve against validation pictures: {strangers}.
A culture that it was not taught is hardly told from one that it was: do not rely on this score for that."""


def data_card(sources: Sequence[tuple[str, str, Counter[str]]], split: Row) -> str:
    """DATA.md of the release."""
    cultures = sorted({culture for counts in split["parts"].values() for culture in counts})
    parts = [
        f"| {part} | " + " | ".join(str(counts.get(culture, 0)) for culture in cultures) + " |"
        for part, counts in split["parts"].items()
    ]
    books = [
        f"| {name.rsplit('/', 1)[-1][:70]} | {licence[:90]} | {counts.total()} | {', '.join(sorted(counts))} |"
        for name, licence, counts in sources
    ]
    return f"""\
# Data card: what the model was made from

Pictures of artworks from public repositories and from books of Project Gutenberg, at most 320 pixels a side. The
pictures are **not published with the model**: only a small part is plainly CC0, WikiArt's reproductions are for
non-commercial research, and some sources state no licence.

## Parts

Split {split["digest"][:12]}. Groups are kept whole: the artist, else the museum's object, else the source.
Near-duplicates (perceptual hash): {split["near_duplicate_clusters"]}; those of a validation picture are in `too_close`,
used by nobody. `other` are cultures that are no label.

| part | {" | ".join(cultures)} |
{"|---" * (len(cultures) + 1)}|
{_lines(parts)}

## Sources

| source | licence as stated | pictures | cultures |
|---|---|---|---|
{_lines(books)}

{TRAPS}"""


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
