"""The museum's catalogue: MetObjects.csv row by row, and from it the objects worth asking for, in a fixed order."""

import csv
import hashlib
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from training.cultures import COPY, EMPTY, LABELS, Verdict, is_copy, label_of, label_of_nationalities

OBJECTS_CSV: Final = "https://media.githubusercontent.com/media/metmuseum/openaccess/master/MetObjects.csv"
API: Final = "https://collectionapi.metmuseum.org/public/collection/v1"

COLUMNS: Final = (
    "Object ID", "Object Number", "Is Public Domain", "Object Name", "Title", "Culture", "Artist Role", "Artist Prefix",
    "Artist Display Name", "Artist Nationality", "Classification",
)  # fmt: skip
# The field "Link Resource" and the museum's other columns are not read: the API's answer is newer and holds them all.


class BadCatalogue(ValueError):
    """The file is not the museum's objects CSV. The message says what is wrong and what to do."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A public-domain object whose culture the rules could tell."""

    object_id: int
    label: str
    rule: str
    classification: str


@dataclass
class Catalogue:
    """What one pass over the CSV found."""

    candidates: list[Candidate] = field(default_factory=list)
    rows: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> rows
    strings: Counter[tuple[str, Verdict]] = field(default_factory=Counter)  # (culture as written, verdict) -> rows


def read_catalogue(path: Path, *, nationality: bool = False) -> Catalogue:
    """Read MetObjects.csv (300 MB: a row at a time) and keep what is in the public domain and of one culture.

    With `nationality`, the makers' nationality decides where the field Culture is empty, as for most paintings and
    prints. Raises BadCatalogue.
    """
    catalogue = Catalogue()
    seen: set[int] = set()
    for row in _rows(path):
        catalogue.rows += 1
        if not row["Object ID"].isdecimal():
            catalogue.dropped["row without an Object ID"] += 1
        elif int(row["Object ID"]) in seen:
            catalogue.dropped["listed twice"] += 1
        elif row["Is Public Domain"].lower() != "true":
            catalogue.dropped["not in the public domain"] += 1
        else:
            object_id = int(row["Object ID"])
            seen.add(object_id)
            written, verdict = verdict_on(row["Culture"], row, nationality=nationality)
            catalogue.strings[written, verdict] += 1
            if verdict.label is None:
                catalogue.dropped[verdict.rule] += 1
            else:
                kind = sys.intern(row["Classification"] or row["Object Name"])
                catalogue.candidates.append(Candidate(object_id, verdict.label, verdict.rule, kind))
    return catalogue


def verdict_on(culture: str, makers: dict[str, str], *, nationality: bool) -> tuple[str, Verdict]:
    """What the museum wrote and what follows from it; `makers` holds the CSV's columns on the artists."""
    verdict = label_of(culture)
    if not nationality or verdict.rule != EMPTY.name:
        return culture, verdict
    written = makers["Artist Nationality"]
    if is_copy(makers["Artist Role"]) or is_copy(makers["Artist Prefix"]):
        return f"nationality: {written}", Verdict(None, COPY.name)
    verdict = label_of_nationalities(written)
    rule = f"nationality, {verdict.rule}" if verdict.label else verdict.rule
    return f"nationality: {written}", Verdict(verdict.label, rule)


def in_order(candidates: Iterable[Candidate], seed: int) -> dict[str, list[Candidate]]:
    """Label -> its candidates in the order in which to ask for them.

    The order is a hash of seed and object id, taken in turns from each classification, so that the first n of a label
    are not all woodblock prints. It depends on nothing else: a newer CSV moves only what is new in it.
    """
    kinds: dict[str, dict[str, list[Candidate]]] = {label: defaultdict(list) for label in LABELS}
    for candidate in candidates:
        kinds[candidate.label][candidate.classification].append(candidate)
    ordered = {}
    for label, by_kind in kinds.items():
        turns = []
        for name, members in by_kind.items():
            members.sort(key=lambda member: _key(seed, member.object_id))
            turns += [(turn, _key(seed, name), member) for turn, member in enumerate(members)]
        ordered[label] = [member for _, _, member in sorted(turns, key=lambda entry: entry[:2])]
    return ordered


def _key(seed: int, name: object) -> bytes:
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """The columns that we read, of every row; short rows are padded."""
    csv.field_size_limit(
        10_000_000
    )  # characters; the default of 131,072 is too small for a broken quote to be found late
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        if header and header[0].startswith("version https://git-lfs"):
            raise BadCatalogue(
                f"{path} is a Git LFS pointer, not the CSV: run `git lfs pull`, or give the URL of the file itself"
            )
        missing = [column for column in COLUMNS if column not in header]
        if missing:
            raise BadCatalogue(f"{path} is not the museum's MetObjects.csv: it has no column {', '.join(missing)}")
        places = [(column, header.index(column)) for column in COLUMNS]
        try:
            for row in reader:
                yield {column: row[place].strip() if place < len(row) else "" for column, place in places}
        except csv.Error as error:
            raise BadCatalogue(f"{path}, line {reader.line_num}: {error}") from error
