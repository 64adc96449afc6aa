"""One object of the Metropolitan Museum: from its API's answer to a checked picture on disk and a row for metadata.csv.

The API is https://metmuseum.github.io: `GET <api>/objects/<id>` answers a JSON object; the pictures lie elsewhere, at
the addresses that it names. It asks for at most 80 requests a second; its firewall is stricter (training/web.py).
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from serving import images
from training import durable
from training.catalogue import API, Candidate, verdict_on
from training.web import ComeBackLater, FetchError, GaveUp, NotFound, Refused, TurnedAway, Web

LICENCE: Final = "CC0 1.0 (The Metropolitan Museum of Art, Open Access)"
REPOSITORY: Final = "metmuseum/openaccess"  # of the catalogue
SOURCE: Final = "The Metropolitan Museum of Art"

MAX_ANSWER_BYTES: Final = 2_000_000  # an answer is about 3 KB, 200 KB with hundreds of additional pictures
MAX_PICTURE_BYTES: Final = 40_000_000  # "web-large" is about 100 KB, an original up to 20 MB
MIN_SIDE: Final = 96  # pixels, as in the pictures that we had before (shared data's README)

SAVED: Final = "saved"
DROPPED: Final = "dropped"  # for good: never asked for again
FAILED: Final = "failed"  # the next run asks again
ABSENT: Final = "absent"  # 404: asked again, until the harvest knows that it asks at the right place and drops it

# What metadata.csv holds: the columns of our other data first, then what only a museum knows.
COLUMNS: Final = (
    "file", "culture", "source_repo", "source_path", "object_id", "title", "licence", "notes", "artist", "object_type",
    "source", "accession_number", "date", "medium", "department", "museum_culture", "rule", "url", "image_url",
    "sha256",
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """What became of one object; a line of the ledger."""

    object_id: int
    label: str
    outcome: str  # SAVED, DROPPED, FAILED or ABSENT
    reason: str = ""
    bytes: int = 0
    row: dict[str, str] = field(default_factory=dict)  # COLUMNS -> value, when saved

    def to_json(self) -> dict[str, Any]:
        """The line of the ledger."""
        return asdict(self)

    @classmethod
    def from_json(cls, line: dict[str, Any]) -> "Record | None":
        """The record of a line; None for a line of another kind."""
        try:
            return cls(**line)
        except TypeError:
            return None


@dataclass(frozen=True)
class Museum:
    """Where to ask, and what for."""

    web: Web
    api: str = API
    originals: bool = False  # the full picture rather than the small one
    nationality: bool = False

    def collect(self, candidate: Candidate, out: Path) -> Record:
        """Ask for the object, save its picture under `out`, and say what came of it. Raises Stopped, ComeBackLater."""
        try:
            answer = self.web.get(
                f"{self.api.rstrip('/')}/objects/{candidate.object_id}",
                lambda body: _answer(body, candidate.object_id),
                max_bytes=MAX_ANSWER_BYTES,
            )
            row = self._row(candidate, answer)
            picture, suffix = self._picture(answer, row)
            row["file"] = f"images/{candidate.label}/met_{candidate.object_id}.{suffix}"
            row["sha256"] = hashlib.sha256(picture).hexdigest()
            durable.write(out / row["file"], picture)
            return Record(candidate.object_id, candidate.label, SAVED, bytes=len(picture), row=row)
        except NotFound as error:
            return Record(candidate.object_id, candidate.label, ABSENT, str(error))
        except Refused as error:
            return Record(candidate.object_id, candidate.label, DROPPED, str(error))
        except ComeBackLater:
            raise
        except GaveUp as error:
            return Record(candidate.object_id, candidate.label, FAILED, str(error))

    def _row(self, candidate: Candidate, answer: dict[str, Any]) -> dict[str, str]:
        """The object's metadata, from the API: it is newer than the CSV. Raises Refused when no longer wanted."""
        if answer.get("isPublicDomain") is not True:
            raise Refused("not in the public domain")

        def text(key: str) -> str:
            return " ".join(str(answer.get(key) or "").split())

        makers = {
            "Artist Nationality": text("artistNationality"),
            "Artist Prefix": text("artistPrefix"),
            "Artist Role": text("artistRole"),
        }
        written, verdict = verdict_on(text("culture"), makers, nationality=self.nationality)
        if verdict.label != candidate.label:
            raise Refused("the culture has changed since the catalogue")
        return {
            "culture": candidate.label,
            "source_repo": REPOSITORY,
            "source": SOURCE,
            "object_id": str(candidate.object_id),
            "title": text("title") or text("objectName"),
            "licence": LICENCE,
            "notes": f"label: {verdict.rule}; the museum's culture: {written}",
            "artist": _named(text("artistDisplayName")),
            "object_type": text("classification") or text("objectName"),
            "accession_number": text("accessionNumber"),
            "date": text("objectDate"),
            "medium": text("medium"),
            "department": text("department"),
            "museum_culture": written,
            "rule": verdict.rule,
            "url": text("objectURL") or f"https://www.metmuseum.org/art/collection/search/{candidate.object_id}",
        }

    def _picture(self, answer: dict[str, Any], row: dict[str, str]) -> tuple[bytes, str]:
        """The first picture of the object that can be had, and its file's ending; notes its address in `row`."""
        sizes = ("primaryImage", "primaryImageSmall") if self.originals else ("primaryImageSmall", "primaryImage")
        refusal: FetchError = Refused("no picture")
        for url in dict.fromkeys(str(answer.get(size) or "") for size in sizes):
            if not url:
                continue
            try:
                picture, suffix = self.web.get(url, _checked, max_bytes=MAX_PICTURE_BYTES)
            except (Refused, TurnedAway) as error:
                refusal = type(error)(f"picture: {error}")
            else:
                row["image_url"], row["source_path"] = url, unquote(urlsplit(url).path).lstrip("/")
                return picture, suffix
        raise refusal


def _answer(body: bytes, object_id: int) -> dict[str, Any]:
    """The API's answer about this object. Raises ValueError when it is anything else."""
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise ValueError("not JSON") from error
    if not isinstance(answer, dict) or answer.get("objectID") != object_id:
        raise ValueError("not this object")
    return answer


def _checked(data: bytes) -> tuple[bytes, str]:
    """The picture's bytes as they came, and the ending for them, once the model's own decoder has read it to its end.

    Raises ImageError (a ValueError: another try may bring the whole file), or Refused.
    """
    try:
        picture = images.load(data)
    except images.UnacceptableImage as error:
        raise Refused(str(error)) from error
    if min(picture.width, picture.height) < MIN_SIDE:
        raise Refused(f"smaller than {MIN_SIDE} pixels")
    picture.pixels()
    return data, {"JPEG": "jpg"}.get(picture.format, picture.format.lower())


def _named(artist: str) -> str:
    """The maker, or nothing where the museum does not know one: unknown hands are no group of their own."""
    unknown = ("", "unknown", "anonymous", "unidentified", "various")
    return "" if artist.lower().split(",")[0].split(" ")[0] in unknown else artist
