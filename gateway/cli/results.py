"""How what is known of a picture is written down: CSV, JSON lines, or a sentence for a terminal."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol, TextIO

from gateway.cli.sources import Picture
from gateway.remote import Answer, Refused

COLUMNS: Final = (
    "path",
    "culture",
    "probability",
    "decision",
    "top",
    "model",
    "model_version",
    "request_id",
    "problem",
)
PREFIX: Final = "whence_"  # before each of COLUMNS where a catalogue's own columns stand beside them


Result = Answer | Refused
"""What is known of a picture for good: an answer, or why there will never be one."""


class FormatError(ValueError):
    """A file that is not of this format; the text says what is wrong."""


class Lines(Protocol):
    """A way to write results, each as whole lines."""

    def head(self) -> str:
        """What stands before the first result."""

    def line(self, picture: Picture, result: Result) -> str:
        """One result, with its line end."""


class Format(Lines, Protocol):
    """A way to write results that can be read again."""

    def whole(self, data: bytes) -> int:
        """How many bytes of `data` are whole lines: a run that was killed may have left half a line."""

    def read(self, lines: TextIO) -> Iterator[dict[str, str]]:
        """The results as COLUMNS -> text. Raises FormatError."""


class Csv:
    """A row a picture. Behind a catalogue's own columns ours get a prefix."""

    def __init__(self, catalogue: Sequence[str], top: int) -> None:
        self._catalogue = tuple(catalogue)
        self._header = (*catalogue, *((PREFIX if catalogue else "") + column for column in COLUMNS))
        self._top = top

    def head(self) -> str:
        """The names of the columns."""
        return _row(self._header)

    def line(self, picture: Picture, result: Result) -> str:
        """One row."""
        record = _record(picture, result, self._top)
        top = "; ".join(f"{each['culture']} {each['probability']}" for each in record.get("top", ()))
        own = [top if column == "top" else record.get(column, "") for column in COLUMNS]
        return _row([*(picture.row[column] for column in self._catalogue), *own])

    def whole(self, data: bytes) -> int:
        """Up to the last line end that is not inside quotes."""
        end = data.rfind(b"\n") + 1
        while data.count(b'"', 0, end) % 2:
            end = data.rfind(b"\n", 0, end - 1) + 1
        return end

    def read(self, lines: TextIO) -> Iterator[dict[str, str]]:
        """Our columns of each row."""
        rows = csv.reader(lines, strict=True)
        try:
            if tuple(next(rows)) != self._header:
                raise FormatError(f"its columns are not {', '.join(self._header)}")
            for row in rows:
                yield dict(zip(COLUMNS, row[len(self._catalogue) :], strict=True))
        except (csv.Error, ValueError) as error:
            raise FormatError(str(error)) from error


class JsonLines:
    """An object a picture. What a catalogue says stands under `catalogue`."""

    def __init__(self, top: int) -> None:
        self._top = top

    def head(self) -> str:
        """Nothing."""
        return ""

    def line(self, picture: Picture, result: Result) -> str:
        """One object."""
        record = _record(picture, result, self._top)
        if picture.row:
            record["catalogue"] = dict(picture.row)
        return json.dumps(record, ensure_ascii=False) + "\n"

    def whole(self, data: bytes) -> int:
        """Up to the last line end: JSON has none inside a string."""
        return data.rfind(b"\n") + 1

    def read(self, lines: TextIO) -> Iterator[dict[str, str]]:
        """What each object says of our columns."""
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                yield {"path": record["path"]} | {column: str(record.get(column, "")) for column in COLUMNS[1:]}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise FormatError(f"line {number} is no result of whence") from error


class Sentences:
    """A sentence a picture, for people."""

    def head(self) -> str:
        """Nothing."""
        return ""

    def line(self, picture: Picture, result: Result) -> str:
        """One sentence."""
        if isinstance(result, Refused):
            return f"{picture.path}: no answer: {result}\n"
        said = worded(result.culture, result.probability, result.decision)
        return f"{picture.path}: {said}\n"


def worded(culture: str, probability: float, decision: str) -> str:
    """An answer as the page words it."""
    match decision:
        case "abstained":
            return f"not sure; closest to objects catalogued as {culture} ({probability:.0%})"
        case "out_of_distribution":
            return "like none of the cultures that the model knows"
    return f"resembles objects catalogued as {culture} ({probability:.0%})"


def _record(picture: Picture, result: Result, top: int) -> dict[str, Any]:
    """The result as COLUMNS -> value, without the columns that have none."""
    if isinstance(result, Refused):
        return {"path": picture.path, "request_id": result.request_id, "problem": str(result)}
    return {
        "path": picture.path,
        "culture": result.culture,
        "probability": result.probability,
        "decision": result.decision,
        "top": [{"culture": culture, "probability": probability} for culture, probability in result.top[:top]],
        "model": result.model,
        "model_version": result.version,
        "request_id": result.request_id,
    }


def _row(values: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(values)
    return text.getvalue()
