"""What the command is pointed at, as one list of pictures: files, folders, or the rows of a catalogue."""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".avif", ".tif", ".tiff", ".gif"})
COLUMNS: Final = ("path", "file", "filename", "file_name", "image", "picture")  # looked for in this order, in any case


class SourceError(ValueError):
    """The command cannot start with what it was pointed at; the text says why."""


@dataclass(frozen=True)
class Picture:
    """One picture to ask about. `path` names it in the output; `file` is where it lies."""

    path: str
    file: Path
    row: Mapping[str, str] = field(default_factory=dict)  # what the catalogue says about it


@dataclass(frozen=True)
class Sources:
    """All pictures, in the order of the output, and the columns of the catalogue that they come from, if any."""

    pictures: Sequence[Picture]
    columns: tuple[str, ...] = ()


def find(paths: Sequence[Path], *, column: str | None = None, root: Path | None = None) -> Sources:
    """The pictures at `paths`. Raises SourceError."""
    catalogues = [path for path in paths if path.suffix.lower() in (".csv", ".tsv")]
    if not catalogues:
        return Sources([picture for path in paths for picture in _found(path)])
    if len(paths) > 1:
        raise SourceError("a catalogue has to be the only PATH: its columns are those of the output")
    return _catalogue(catalogues[0], column, root or catalogues[0].parent)


def _found(path: Path) -> list[Picture]:
    pictures = list(_at(path))
    if not pictures:
        raise SourceError(f"{path} holds no picture: no file in it ends in {', '.join(sorted(SUFFIXES))}")
    return pictures


def _at(path: Path) -> Iterator[Picture]:
    if not path.exists():
        raise SourceError(f"{path} does not exist")
    if path.is_dir():
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                file = Path(folder, name)
                wanted = file.suffix.lower() in SUFFIXES and not name.startswith(".")
                if wanted and (file.is_file() or file.is_symlink()):  # not a pipe, which would be read for ever
                    yield Picture(str(file), file)
    else:
        yield Picture(str(path), path)


def _catalogue(path: Path, column: str | None, root: Path) -> Sources:
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            head = lines.readline()
            lines.seek(0)
            delimiter = max("\t;,", key=head.count)
            rows = csv.DictReader(lines, delimiter=delimiter, restkey="", restval="")
            columns = tuple(rows.fieldnames or ())
            if len(set(columns)) != len(columns):
                raise SourceError(f"{path} has two columns of the same name")
            name = _path_column(columns, column, path)
            pictures = [Picture(row[name], root / row[name], {each: row[each] for each in columns}) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read as a catalogue: {error}") from error
    return Sources(pictures, columns)


def _path_column(columns: Sequence[str], wanted: str | None, path: Path) -> str:
    """The column that says where the picture lies."""
    by_lower = {column.lower(): column for column in columns}
    for name in (wanted,) if wanted else COLUMNS:
        if name.lower() in by_lower:
            return by_lower[name.lower()]
    raise SourceError(
        f"{path} has no column {wanted or ' or '.join(COLUMNS)} but {', '.join(columns)}; name it with --column"
    )
