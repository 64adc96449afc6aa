"""The body of a request, as pictures: raw, multipart or JSON. The only file that reads a body; nothing touches disk.

Limits hold while reading, so a body without a length (chunked) is refused at the same byte as one that announces it.
"""

import binascii
import io
from base64 import b64decode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any, Final

from flask import Request
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.formparser import MultiPartParser

from gateway import documents
from gateway.context import Context
from gateway.errors import BadRequest, SlowClient, TooLarge, UnsupportedMedia
from gateway.limits import Account
from gateway.reads import bodies
from gateway.settings import Settings
from serving.contract import IMAGE_SIZE

# What the pixels of one picture will take: decoded, together with the others, and packed for the wire.
PIXEL_BYTES: Final = 3 * IMAGE_SIZE * IMAGE_SIZE * 3
MAX_NAME: Final = 255  # characters
CHUNK: Final = 64 * 1024  # bytes
_MULTIPART: Final = "multipart/form-data"
_JSON: Final = "application/json"


@dataclass(frozen=True)
class Upload:
    """The bytes of one picture."""

    data: bytes
    filename: str | None = None


def read(request: Request, settings: Settings, context: Context, account: Account) -> list[Upload]:
    """The pictures of the request, at least one.

    Raises BadRequest, TooLarge, UnsupportedMedia, SlowClient or Overloaded.
    """
    body = read_body(request, settings, context, account)
    match request.mimetype:
        case kind if kind == _MULTIPART:
            account.hold(len(body))  # its pictures are copies
            uploads = _multipart(body, request, settings)
        case kind if kind == _JSON:
            with documents.opened(body, account) as document:
                del body  # its texts are copies
                uploads = _json(document, settings)
        case kind if kind.startswith("image/") or kind in (
            "",
            "application/octet-stream",
            "application/x-www-form-urlencoded",
        ):
            # The last is what curl --data-binary says when nobody told it better; the bytes decide anyway.
            uploads = [Upload(body)]
        case kind:
            raise UnsupportedMedia(f"Content-Type {kind[:100]} is neither a picture, {_MULTIPART} nor {_JSON}")
    if not uploads:
        raise BadRequest(
            f'no picture: expected a picture as body, parts named "file" in {_MULTIPART}, or "images" in {_JSON}'
        )
    check_sizes([upload.data for upload in uploads], settings)
    account.hold(len(uploads) * PIXEL_BYTES)
    return uploads


def check_sizes(pictures: Iterable[bytes], settings: Settings) -> None:
    """Raises BadRequest for a picture without bytes, TooLarge for one with too many."""
    for picture in pictures:
        if not picture:
            raise BadRequest("no picture: there are no bytes")
        if len(picture) > settings.max_upload_bytes:
            raise TooLarge(f"a picture has more than {settings.max_upload_bytes:,} bytes")


def read_body(
    request: Request, settings: Settings, context: Context, account: Account, *, limit: int | None = None
) -> bytes:
    """All bytes of the body, at most `limit` (default: the settings').

    Raises BadRequest, TooLarge, UnsupportedMedia, SlowClient or Overloaded.
    """
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMedia("Content-Encoding is not accepted: pictures are compressed already")
    limit = settings.max_body_bytes if limit is None else limit
    announced = request.content_length
    if announced is not None and announced > limit:
        raise TooLarge(f"the body has more than {limit:,} bytes")
    stream: IO[bytes] = request.environ["wsgi.input"]
    pieces: list[bytes] = []
    size = 0
    with bodies.limited(request.environ.get("gunicorn.socket"), context.deadline.at) as read:
        while announced is None or size < announced:
            try:
                piece = stream.read(CHUNK if announced is None else min(CHUNK, announced - size))
            except Exception as error:  # gunicorn has a class for each way in which a body can break
                late = read.cut or context.deadline.passed
                raise SlowClient if late else BadRequest("the body broke off") from error
            if read.cut or context.deadline.passed:
                raise SlowClient
            if not piece:
                break
            size += len(piece)
            if size > limit:
                raise TooLarge(f"the body has more than {limit:,} bytes")
            read.received = size
            account.hold(len(piece))
            pieces.append(piece)
    context.received_bytes = size
    if announced is not None and size < announced:
        raise BadRequest("the body broke off")
    return b"".join(pieces)


def _multipart(body: bytes, request: Request, settings: Settings) -> list[Upload]:
    """The parts named `file`."""
    boundary = request.mimetype_params.get("boundary", "").encode("latin-1", "replace")
    if not boundary:
        raise BadRequest("multipart without a boundary")
    parser = MultiPartParser(
        stream_factory=_memory,
        max_form_memory_size=4 * CHUNK,  # text fields; werkzeug counts what it has just read of a file in, one CHUNK
        max_form_parts=settings.max_pictures + 8,  # some clients add fields of their own
    )
    try:
        _, files = parser.parse(io.BytesIO(body), boundary, len(body))
    except RequestEntityTooLarge as error:
        raise TooLarge(f"more than {settings.max_pictures} pictures, or a text field too long") from error
    except (ValueError, LookupError) as error:
        raise BadRequest("malformed multipart") from error
    parts: list[FileStorage] = files.getlist("file")
    if not parts and files:
        raise BadRequest('no picture: the part has to be named "file"')
    _check_count(len(parts), settings)
    return [Upload(part.stream.read(), _name(part.filename)) for part in parts]


def _name(filename: str | None) -> str | None:
    """A file's name as it goes back: not too long, and text that UTF-8 can say (JSON can bring half characters)."""
    return filename[:MAX_NAME].encode("utf-8", "replace").decode() if filename else None


def _memory(
    total_content_length: int | None, content_type: str | None, filename: str | None, content_length: int | None = None
) -> IO[bytes]:
    """Where werkzeug puts a part. Its own choice writes parts above 500 kB to disk."""
    del total_content_length, content_type, filename, content_length
    return io.BytesIO()


def _json(document: dict[str, Any], settings: Settings) -> list[Upload]:
    """The pictures of {"images": [{"b64": "...", "filename": "..."}]}."""
    images = document.get("images")
    if not isinstance(images, list) or not images:
        raise BadRequest('expected {"images": [{"b64": "..."}]}')
    _check_count(len(images), settings)
    return [_image(image, at) for at, image in enumerate(images)]


def _image(image: Any, at: int) -> Upload:
    if not isinstance(image, dict) or not isinstance(image.get("b64"), str):
        raise BadRequest(f'images[{at}] is not {{"b64": "..."}}')
    filename = image.get("filename")
    if filename is not None and not isinstance(filename, str):
        raise BadRequest(f"images[{at}].filename is no string")
    try:
        return Upload(b64decode(image["b64"], validate=True), _name(filename))
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"images[{at}].b64 is not base64") from error


def _check_count(count: int, settings: Settings) -> None:
    if count > settings.max_pictures:
        raise TooLarge(f"more than {settings.max_pictures} pictures")
