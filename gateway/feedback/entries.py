"""One judgement of a person, as it is sent, kept and exported. Never a picture."""

import re
from dataclasses import dataclass
from typing import Any, Final

from gateway.errors import BadRequest

MAX_NOTE: Final = 2000  # characters
PATTERNS: Final = {
    "request_id": (r"[A-Za-z0-9._-]{1,64}", "an id as replies carry it"),
    # Any culture, also one that the model does not know: that is what the next training run should hear of.
    "culture": (
        r"[A-Za-zÀ-ž](?:[0-9A-Za-zÀ-ž]|[ ,'().-]){0,63}",
        "a name of at most 64 letters, digits, spaces and - , ' . ( )",
    ),
    "picture_sha256": (r"[0-9a-f]{64}", "64 hexadecimal digits, as explain=provenance tells"),
}
_KEY: Final = r"[!-~]{1,128}"


@dataclass(frozen=True)
class Entry:
    """The culture that a person believes the picture of a request to come from."""

    request_id: str
    culture: str
    note: str = ""
    picture_sha256: str = ""  # so that the training run can find the picture, if it has it


@dataclass(frozen=True)
class Kept:
    """An entry that is on the disk."""

    entry: Entry
    received_at: str  # UTC, ISO 8601
    repeated: bool = False  # it was there already, under the same key


def parse(document: dict[str, Any]) -> Entry:
    """The entry that a JSON object says. Raises BadRequest, for unknown members too: there is no place for more."""
    unknown = document.keys() - {"request_id", "culture", "note", "picture_sha256"}
    if unknown:
        raise BadRequest(f"feedback has no {sorted(unknown)[0][:50]!r}")
    found = {name: _text(document, name) for name in PATTERNS if name != "picture_sha256" or name in document}
    note = document.get("note", "")
    if not isinstance(note, str) or len(note) > MAX_NOTE or not _printable(note):
        raise BadRequest(f"note is no text of at most {MAX_NOTE} characters")
    return Entry(note=note, **found)


def parse_key(text: str | None) -> str | None:
    """The value of Idempotency-Key, with or without quotes; None when there is none. Raises BadRequest."""
    if text is None:
        return None
    key = text.strip().removeprefix('"').removesuffix('"')
    if not re.fullmatch(_KEY, key):
        raise BadRequest("Idempotency-Key is no text of 1 to 128 visible ASCII characters")
    return key


def _text(document: dict[str, Any], name: str) -> str:
    pattern, expected = PATTERNS[name]
    value = document.get(name)
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise BadRequest(f"{name} is not {expected}")
    return value


def _printable(text: str) -> bool:
    """Whether a database and a CSV can hold it: no NUL or other control characters, no half of a surrogate pair."""
    return not re.search(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", text)
