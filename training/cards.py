"""The two texts beside a released checkpoint: what the model is good for, and what it was made from.

What they say of the data is printed only where the sources that it is true of are among the pictures.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from training import met
from training.calibrate import HONEST
from training.checkpoint import TEMPERATURES, Release
from training.layers import UNUSUAL
from training.records import SOURCE, STRANGE, TRAIN, Record
from training.report import classes_table, differences_table, folds_tables, intervals_text, leaks_table, parts_table
from training.runs import GROUP_WEIGHT, SEED, START

Row = dict[str, Any]
Source = tuple[str, str, Counter[str]]  # name, licence, pictures per culture

FEW_ARTISTS: Final = 40  # of a class: fewer make artist-disjoint numbers a matter of chance

MEASURED_BEFORE: Final = """\
The run was then repeated on all labelled pictures, validation parts too, with the same settings. No picture is left to
measure that with: the numbers, the temperatures and the thresholds are those of the run before, which was not trained
on the validation parts."""
MEASURED_ITSELF: Final = "The numbers are those of the released weights, on pictures that they were not trained on."
CHOSEN: Final = """\
Validation pictures were not trained on, but they were chosen by: which stage is kept and after how many epochs, and, as
a rule, settings such as `kept` and `prior`, are what was best on the pictures that the numbers below are of. That
flatters them."""

# Sentences, and the kinds of sources that must be among the pictures for them to be true.
WIKIART, BOOKS, LISTS, SCROLLS = "WikiArt", "books", "lists of painters", "Chinese paintings"
KINDS: Final = {
    WIKIART: r"wiki-?art",
    BOOKS: r"^GITenberg/",
    LISTS: r"wiki-?art|PaintingsAndArtist|image-data",
    SCROLLS: r"Landscape-Painting-Classification",
}
LIMITS: Final[Sequence[tuple[str, str]]] = (
    (WIKIART, """\
- Medium stands in for culture: Greek is vases and sculpture, Japanese mostly prints, Europeans mostly paintings. A
  French porcelain is not told from an Italian one by what makes it French.
- Period stands in for nationality among Europeans, who are confused most."""),
    (BOOKS, """\
- Many pictures are black-and-white plates of old books; colour and greyscale are reported apart above."""),
)  # fmt: skip
TRAPS: Final[Sequence[tuple[str, str]]] = (
    (LISTS, "- Labels of painters are nationalities from a hand-written table. Expect 1-8 % wrong."),
    (BOOKS, "- Labels of book plates are the book's subject, or from the caption."),
    (SCROLLS, "- Most wrong labels are among the Chinese paintings."),
    (WIKIART, """\
- File geometry gives classes away (one source is 224 x 224 throughout): pictures are squashed, never padded, and the
  leak report says how far geometry alone gets."""),
    (BOOKS, """\
- A book is a style of reproduction: validate by source, not by picture.
- Black-and-white plates are unevenly spread over the classes, so grey itself hints at a class."""),
)  # fmt: skip
MIXED: Final = """\
- The training pictures are of **mixed sources; the label is the artist's nationality or the object's culture** as a
  repository, a book or its caption has it, not the Metropolitan Museum's Culture field. See DATA.md."""
OF_THE_MET: Final = """\
- The training pictures are the Metropolitan Museum's; the label is its Culture field, read by the rules in DATA.md."""
THEIR_OWN: Final = """\
- The label is what the pictures' folder or metadata.csv calls them. See DATA.md."""
BEFORE_PRODUCTION: Final = """
## Before production

Train it again on Met Open Access: `python -m training collect`, then `prepare`, `fit`, `evaluate`, `release`. At
least 1,500 objects a class, split by artist and accession group; the temperatures and the thresholds must be found
again on the new pictures, and the leak report read before the accuracy.
"""


def model_card(release: Release) -> str:
    """README.md of the release, from release.json alone."""
    shape, facts = release.shape, release.facts
    baselines = "; ".join(
        f"{name}: accuracy {row['accuracy']:.3f}, NLL {row['nll']:.2f}" for name, row in facts["baselines"].items()
    )
    stages = "; ".join(f"{name}: {row['accuracy']:.3f}, {row['nll']:.3f}" for name, row in facts["stages"].items())
    rows = [*facts["metrics"].values(), *facts["per_class"].values()]
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

## How it was made

{_lines([*made(facts["recipe"]), "", CHOSEN])}

## What it is worth

{MEASURED_BEFORE if facts["measured_on_other_weights"] else MEASURED_ITSELF}
Random: known artists and sources. Artist-disjoint: artists that training did not know. Source-disjoint: books and sites
that training did not know.
{intervals_text(rows)}
The temperatures of each half of the validation pictures were found on the other half.

{_lines(parts_table(facts["metrics"]))}
{_comparisons(facts)}
Beside it, on all validation pictures: {baselines}.
Stages of the run (accuracy, NLL; the one with the least NLL is taken): {stages}.

{_lines(classes_table(facts["per_class"]))}

{_lines(leaks_table(facts["leaks"]))}
{_folds(facts)}
## When it says nothing

{_silence(release)}

{_limits(len(release.labels), facts["sources"])}"""


def made(recipe: Sequence[Row]) -> list[str]:
    """A numbered line for each run that a network went through; `recipe` is that of run.json."""
    return [f"{number}. {_step(step, number)}." for number, step in enumerate(recipe, 1)]


def _step(step: Row, number: int) -> str:
    config, stage = step["config"], step["stage"]
    told = f"learning rate {config['learning_rate']:g}, at most {config['epochs']} epochs, " + (
        "pixels augmented anew in every epoch"
        if config["fresh"]
        else f"{config['views']} cached view(s) of each picture"
    )
    if config["kept"] != 1:
        told += f"; {config['kept']:g} of the way from the first weights to the tuned ones is kept"
    blocks = f"blocks {config['cut']} to 5" if config["cut"] < 5 else "block 5"
    if stage == START:
        text = f"Nothing new: fine-tuning {blocks} and the head did not lower the validation NLL"
    elif number > 1:
        text = f"{blocks[0].upper()}{blocks[1:]} and the head fine-tuned further ({told})"
    else:
        text = (
            "VGG16 as it was, and a linear head on its texture statistics, solved to its optimum "
            f"({_penalties(config)}, label_smoothing {config['label_smoothing']:g}, ranks {_list(config['ranks'])})"
        )
        if stage.startswith(SEED):
            text += f"; then {blocks} and the head fine-tuned ({told})"
    if config["prior"]:
        text += f"; {config['prior']:g} of the logarithms of the classes' frequencies added to the logits"
    return text


def _penalties(config: Row) -> str:
    """What the head was penalised for: the settings that are not zero. An older run has not all of them."""
    text = f"weight_decay {config['weight_decay']:g}"
    if config.get("consistency"):
        text += f", consistency {config['consistency']:g} over {config['views'] - 1} augmented view(s) of each picture"
    return text


def _comparisons(facts: Row) -> str:
    texts = [
        f"""
Against `{name}`, on the same pictures: how much higher the accuracy is, and the NLL (lower is better). The 95 %
intervals are of a bootstrap that draws the same groups; where 0 lies outside, the difference is more than chance. Both
are calibrated alike.
{_rival(name, facts)}
{_lines(differences_table(differences))}
"""
        for name, differences in facts["comparisons"].items()
    ]
    return "".join(texts)


def _folds(facts: Row) -> str:
    found = facts.get("crossvalidation")
    if not found:
        return ""
    return f"""
## Its head in folds

The head alone, on the frozen network, solved anew in each of {found["folds"]} folds of each kind: every labelled
picture is held out alone, then with its artist (object or book, where none is named), then, unless its source is too
large for that, with its book. Several times the pictures above; fine-tuning is left out. What settings of the head
were chosen by flatters it: folds like these, and the parts above have pictures in common with them.
{_lines(folds_tables(found))}
"""


def _rival(name: str, facts: Row) -> str:
    """What the other run is."""
    return _lines([f"`{name}` was made so:", "", *made(facts["rivals"][name]), ""])


def _silence(release: Release) -> str:
    calibration, abstention = release.calibration, release.facts["abstention"]
    strangers = "; ".join(
        f"{name} ({row['count']}): {row['distance']:.2f}"
        + (f" ({row['in colour']:.2f})" if "in colour" in row else "")
        + f", {row['called out of distribution']:.0%} called so"
        for name, row in release.facts["strangers"].items()
    )
    score = f"""\
means and deviations of the lowest block alone: one minus the cosine between the picture and the
nearest of {release.shape.centres} centres of the training pictures (k-means in their {release.shape.axes} strongest
directions), plus {UNUSUAL} times how many deviations these numbers are off (root mean square)"""
    told = "A culture that it was not taught is hardly told from one that it was: do not rely on this score for that."
    if release.shape.outside:
        score = f"""\
two things, and is the greater. One is how probable a culture is that is none of the labels: a logistic regression on
means and deviations of all blocks, learnt from pictures of such cultures (outlier exposure), all with and without their
colours; no answer depends on it. The other is a sigmoid of how far the picture lies from those of training, one half
where one of these in a hundred is farther. It reads {score}"""
        told = """\
A culture of whose pictures none was shown is hardly told from the labels: do not rely on this score for that."""
    return f"""\
Each picture's logits are divided by a temperature of its own before the softmax,
{calibration.temperature:.3f} * exp({calibration.margin_weight:+.4f} * margin)
between {TEMPERATURES[0]} and {TEMPERATURES[1]}: the farther the first logit is ahead of the second (the margin), the
surer the answer. The two numbers are those of the least NLL on the validation pictures{_counted(release.facts)}.

An answer is accepted from a top probability of {calibration.least_probability:.2f} on. Of the \
{abstention.get("pictures", HONEST)} pictures,
{abstention["coverage"]:.1%} get one, and {abstention["accuracy"]:.0%} of these answers are right (asked for: \
{abstention["target"]:.0%}). The others are `abstained`.

`ood_score` reads {score}. Above {calibration.greatest_ood:.3f} the answer is `out_of_distribution`.
Area under the ROC curve against validation pictures (those in colour alone): {strangers}.
{told}"""


def _counted(facts: Row) -> str:
    """How much these pictures count, where they do not count alike."""
    weight = facts.get(GROUP_WEIGHT, 0.0)
    return f", each of a group of n (an artist, an object, a book) counting n ** -{weight:g}" if weight else ""


def _limits(cultures: int, sources: Iterable[str]) -> str:
    names = list(sources)
    kinds, only_met = _kinds(names), set(names) == {met.SOURCE}
    label = OF_THE_MET if only_met else MIXED if kinds & {BOOKS, LISTS} else THEIR_OWN
    return f"""\
## Intended use and limits

A first guess for a person who looks further: "resembles objects catalogued as ...". Not for attribution, valuation,
customs, or claims of origin.

{_lines([label, *_true_of(LIMITS, kinds)])}
- It knows {cultures} cultures and nothing of the rest of the world; a work of any other gets one of these.
{"" if only_met else BEFORE_PRODUCTION}"""


def _kinds(sources: Iterable[str]) -> set[str]:
    """Which of KINDS there are."""
    return {kind for name in sources for kind, pattern in KINDS.items() if re.search(pattern, name)}


def _true_of(sentences: Sequence[tuple[str, str]], kinds: set[str]) -> list[str]:
    return [text for kind, text in sentences if kind in kinds]


def data_card(records: Sequence[Record], split: Row) -> str:
    """DATA.md of the release."""
    cultures = sorted({culture for counts in split["parts"].values() for culture in counts})
    parts = [
        f"| {part} | " + " | ".join(str(counts.get(culture, 0)) for culture in cultures) + " |"
        for part, counts in split["parts"].items()
    ]
    found = sources(records)
    rows = [
        f"| {_cell(name.rsplit('/', 1)[-1][:70])} | {_cell(licence) or 'not stated'} | {counts.total()} "
        f"| {', '.join(sorted(counts))} |"
        for name, licence, counts in found
    ]
    side = max(max(record.width, record.height) for record in records)
    free = sum(counts.total() for _, licence, counts in found if licence.startswith("CC0"))
    traps = [*_true_of(TRAPS, _kinds(name for name, _, _ in found)), *_few_artists(records)]
    return f"""\
# Data card: what the model was made from

{len(records):,} pictures of artworks, at most {side:,} pixels a side. They are **not published with the model**:
of {free:,} the source states CC0; the terms of the others stand below, as stated.

## Parts

Split {split["digest"][:12]}. Held out whole: in `source` all pictures of a book (with its volumes) or site, in
`artist` all others of an artist, in `random` works. So artists in `source` may be known: {_known_artists(records)}.
Near-duplicates (perceptual hash): {split["near_duplicate_clusters"]}; those of a validation picture are in
`too_close`, used by nobody. `shown` and `other` are cultures that are no label, by whole artists and works: the first
may be learnt from as strangers, the others only try what was learnt.

| part | {" | ".join(cultures)} |
{"|---" * (len(cultures) + 1)}|
{_lines(parts)}

## Sources

| source | licence as stated | pictures | cultures |
|---|---|---|---|
{_lines(rows)}
{_rules(split)}{_lines(["", "## Known traps", "", *traps, ""]) if traps else ""}"""


def sources(records: Sequence[Record]) -> list[Source]:
    """Everything that was used, the largest first. Licences as stated, but for the year in which an artist died."""
    found: dict[tuple[str, str], Counter[str]] = {}
    for record in records:
        licence = re.sub(r"\s*\(artist d\. \d+\)", "", record.licence).strip()
        found.setdefault((record.source, licence), Counter())[record.culture] += 1
    return sorted(((*key, count) for key, count in found.items()), key=lambda row: -row[2].total())


def _known_artists(records: Sequence[Record]) -> str:
    """How many of the pictures of unknown sources are by artists that training knows."""
    known = {record.artist for record in records if record.part == TRAIN} - {""}
    unknown_sources = [record for record in records if record.part == SOURCE]
    return f"{sum(record.artist in known for record in unknown_sources):,} of {len(unknown_sources):,} pictures"


def _few_artists(records: Iterable[Record]) -> list[str]:
    artists: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.artist and record.part not in STRANGE:
            artists[record.culture].add(record.artist)
    few = sorted((len(names), culture) for culture, names in artists.items() if len(names) < FEW_ARTISTS)
    told = ", ".join(f"{culture} {count}" for count, culture in few)
    return [f"- Few artists per class ({told}): artist-disjoint numbers have wide intervals."] if few else []


def _rules(split: Row) -> str:
    """How a collected folder's culture strings became labels."""
    return f"\n## Labels\n\n```\n{split['rules'].rstrip()}\n```\n" if split.get("rules") else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(lines)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))
