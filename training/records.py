"""The pictures of a data folder and what is known about each: the rows that everything else in training is about."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from training import durable

PICTURE_SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".tif", ".tiff", ".gif")
METADATA: Final = "metadata.csv"
RULES: Final = "rules.txt"  # beside it in a collected folder: how the museum's culture strings became labels
VOLUME: Final = r"vol(?:ume)?|tome|tomo|band|bd|teil|part|series|jahrgang"  # what stands before a volume's number

TRAIN: Final = "train"
RANDOM: Final = "random"  # validation pictures of artists and sources that training knows
ARTIST: Final = "artist"  # of artists that training does not know
SOURCE: Final = "source"  # from sources (books, sites) that training does not know
TOO_CLOSE: Final = "too_close"  # near-duplicates of a validation picture: used by nobody
SHOWN: Final = "shown"  # of cultures that are no label; training may learn that they are none
OTHER: Final = "other"  # of such cultures too: strangers that only try the out-of-distribution score
VALIDATION: Final = (RANDOM, ARTIST, SOURCE)
STRANGE: Final = (SHOWN, OTHER)


@dataclass(frozen=True)
class Record:
    """One picture. Empty strings where nothing is known."""

    file: str  # relative to the data folder
    culture: str
    source: str = ""  # the repository, book or museum that it comes from
    artist: str = ""
    accession: str = ""  # the museum's own number
    object_type: str = ""
    notes: str = ""
    licence: str = ""
    width: int = 0  # pixels as stored; only the leak report looks at them
    height: int = 0
    bytes: int = 0
    grey: bool = False  # no colour in the pixels
    cluster: int = 0  # near-duplicates share a number
    part: str = ""

    @property
    def group(self) -> str:
        """What must not be split: the artist, else the museum's object, else the book, as that is one look.

        In the part SOURCE the book comes first, since it was held out by books, whoever made what their plates show.
        """
        if self.part == SOURCE:
            return f"source {self.book}"
        if self.artist:
            return f"artist {self.artist}"
        if self.accession:
            return self.work
        return f"source {self.book}" if self.source else self.work

    @property
    def book(self) -> str:
        """The source, one for all volumes of a book."""
        return book_of(self.source)

    @property
    def work(self) -> str:
        """What is one thing, however often it was photographed: the museum's object, else the near-duplicates."""
        return f"object {accession_group(self.accession)}" if self.accession else f"cluster {self.cluster}"

    @property
    def is_object(self) -> bool:
        """Whether it shows a thing (vase, chair, lace) and no painting, print or drawing; a guess from its type."""
        return not re.search(r"paint|print|draw|watercolour|miniature|etching", self.object_type, re.I)


def accession_group(number: str) -> str:
    """The museum's number without what tells pieces of one object or set apart: 1975.1.23a, b and 1975.1.23(2)."""
    number = re.sub(r"(?<=\w)\s*\(.*$", "", number.strip())
    number = re.sub(r"[–-].*$", "", number)  # "29.100.1-5": a set; its first number stands for it
    return re.sub(r"(?<=\d)[a-z](?:\s*,\s*[a-z])*$", "", number.split(",")[0].strip())


def book_of(source: str) -> str:
    """What the volumes of one book have in common: "Lace, Vol. I: Early Lace_12" and "lace-vol-2_13" -> "lace".

    What follows a volume's number is the volume's own title; an id at the end is the repository's own.
    """
    name = re.sub(r"_+\d+$", "", source.strip().lower())
    return re.sub(rf"(?<=[^\W_])[\W_]+(?:{VOLUME})(?:[\W_]*\d+|[\W_]+[ivxl]+)(?![^\W_]).*$", "", name).strip("-_ ")


def classes_of(records: Iterable[Record], labels: Sequence[str]) -> list[int]:
    """The number of each record's label; -1 where its culture is none."""
    numbers = {label: number for number, label in enumerate(labels)}
    return [numbers.get(record.culture, -1) for record in records]


def read_records(data: Path) -> list[Record]:
    """The pictures of a folder: from its metadata.csv, else one folder per culture. Raises ValueError without any."""
    records = _from_metadata(data) if (data / METADATA).exists() else _from_folders(data)
    if not records:
        raise ValueError(f"no pictures in {data}: expected {METADATA}, or one folder per culture")
    return records


def write_records(path: Path, records: Iterable[Record]) -> None:
    """All columns, as CSV; the whole file or none."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(Record)])
    writer.writeheader()
    writer.writerows(asdict(record) for record in records)
    durable.write(path, text.getvalue().encode())


def load_records(path: Path) -> list[Record]:
    """What `write_records` wrote."""
    numbers: dict[str, Callable[[str], Any]] = dict.fromkeys(("width", "height", "bytes", "cluster"), int)
    numbers["grey"] = "True".__eq__
    with path.open(newline="", encoding="utf-8") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    return [Record(**{k: numbers[k](v) if k in numbers else v for k, v in row.items()}) for row in rows]


def _from_metadata(data: Path) -> list[Record]:
    with (data / METADATA).open(newline="", encoding="utf-8") as file:
        return [
            Record(
                file=row["file"],
                culture=row["culture"],
                source=row.get("source_repo", ""),
                artist=row.get("artist", ""),
                accession=row.get("accession_number", ""),
                object_type=row.get("object_type", ""),
                notes=row.get("notes", ""),
                licence=row.get("licence", ""),
            )
            for row in csv.DictReader(file)
        ]


def _from_folders(data: Path) -> list[Record]:
    files = sorted(path for path in data.glob("*/**/*") if path.suffix.lower() in PICTURE_SUFFIXES)
    return [Record(str(path.relative_to(data)), path.relative_to(data).parts[0]) for path in files]
