"""A table of pictures and their objects: what `collect` writes, or tests/images/samples.csv.

Its column `file` names a picture relative to the table's own folder; every other column is optional.
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving.index import ArtObject

# Field of ArtObject -> the columns it is read from, the first that is filled.
_COLUMNS: Final = {
    "title": ("title",),
    "artist": ("artist",),
    "date": ("date",),
    "culture": ("culture",),
    "source": ("source", "source_repo"),
    "object_id": ("object_id",),
    "url": ("url", "link"),
    "licence": ("licence", "license"),
}


@dataclass(frozen=True)
class Row:
    """One picture of the manifest."""

    picture: Path
    object: ArtObject


def read_manifest(path: Path, *, source: str = "") -> Iterator[Row]:
    """The rows of a manifest, in its order; `source` stands where the manifest names none. Raises ValueError."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if "file" not in (reader.fieldnames or ()):
            raise ValueError(f"{path} has no column `file`")
        for row in reader:
            known = {name: _first(row, columns) for name, columns in _COLUMNS.items()}
            known["source"] = known["source"] or source
            yield Row(path.parent / row["file"], ArtObject(**known))


def _first(row: dict[str, str], columns: tuple[str, ...]) -> str:
    return next((row[column].strip() for column in columns if row.get(column)), "")
