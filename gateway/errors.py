"""Everything that can go wrong, as RFC 9457 problem documents: one class for each `type`, with its HTTP status.

`python -m gateway.errors` prints the README's table.

    who asks          Unauthorized, OverQuota
    a head arrives    AddressTooLong, HeadersTooLarge, NotFound, MethodNotAllowed
    bytes arrive      BadRequest, TooLarge, SlowClient, ClientGone
    bytes to pixels   UnsupportedMedia, UndecodablePicture, UnacceptablePicture
    place and time    Overloaded, Expired
    model server      ModelUnavailable, ModelTimeout, ContractBroken
    ourselves         InternalError
"""

import json
import logging
import random
from http import HTTPStatus
from typing import Any, ClassVar, Final

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from gateway import context
from serving.images import ImageError, UnacceptableImage, UndecodableImage, UnsupportedFormat

log = logging.getLogger("whence.errors")

MEDIA_TYPE: Final = "application/problem+json"


class Problem(Exception):
    """An answer that is no prediction. The class says what kind; `detail` tells the client what happened this time."""

    slug: ClassVar[str]
    status: ClassVar[int]
    title: ClassVar[str]
    when: ClassVar[str]  # for the README's table
    retry_after_s: ClassVar[float | None] = None

    def __init__(self, detail: str = "", *, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.headers = headers or {}

    @property
    def type(self) -> str:
        """Stable identifier of the kind of problem, a relative URI reference (RFC 9457, section 3.1.1)."""
        return f"/problems/{self.slug}"

    def document(self) -> dict[str, Any]:
        """The members of the problem document; `request_id` is added where there is a request of its own."""
        return {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}

    def response(self) -> Response:
        """The whole HTTP answer."""
        members = {**self.document(), "request_id": context.current().request_id}
        if request.path.startswith("/v2"):  # where the Open Inference Protocol has a member of its own for it
            members["error"] = self.detail
        body = json.dumps(members)
        answer = Response(body, status=self.status, content_type=MEDIA_TYPE, headers=self.headers)
        if self.retry_after_s is not None and "Retry-After" not in answer.headers:
            # Jitter, so that those turned away together do not come back together. Whole seconds: RFC 9110, 10.2.3.
            answer.headers["Retry-After"] = str(round(self.retry_after_s * random.uniform(1, 3)))  # noqa: S311
        return answer


class BadRequest(Problem):
    """The request cannot be understood."""

    slug, status, title = "bad-request", 400, "The request cannot be understood"
    when = "no picture, malformed multipart, JSON or base64, bad parameter or header"


class Unauthorized(Problem):
    """No API key, or none that is known."""

    slug, status, title = "unauthorized", 401, "A known API key is needed"
    when = "API keys are on, and none or an unknown one came in `Authorization: Bearer` or `X-API-Key`"


class NotFound(Problem):
    """No such route."""

    slug, status, title = "not-found", 404, "Nothing lives at this address"
    when = "wrong address"


class MethodNotAllowed(Problem):
    """A route that does not know this method."""

    slug, status, title = "method-not-allowed", 405, "This address does not answer this method"
    when = "wrong method; `Allow` lists the right ones"


class SlowClient(Problem):
    """The body did not arrive in time."""

    slug, status, title = "slow-client", 408, "The body did not arrive in time"
    when = "the request's time was over before its body had arrived, or it came too slowly while others waited"


class ClientGone(Problem):
    """The client hung up. Nobody reads this, but logs and metrics tell of it; the status is nginx's."""

    slug, status, title = "client-gone", 499, "The client hung up"
    when = "in logs and metrics only: the client closed its connection before the answer"


class TooLarge(Problem):
    """More bytes or more pictures than accepted."""

    slug, status, title = "too-large", 413, "The upload is too large"
    when = (
        "too many bytes (of the body, of one picture, or of memory for this request), pictures, values in JSON, or "
        "characters in JSON beyond ASCII"
    )


class AddressTooLong(Problem):
    """A request line that nobody needs."""

    slug, status, title = "address-too-long", 414, "The address is too long"
    when = "the request line has more than 4,094 bytes"


class HeadersTooLarge(Problem):
    """More headers than anybody needs."""

    slug, status, title = "headers-too-large", 431, "The headers are too large"
    when = "more than 64 headers, or one of more than 8,190 bytes"


class UnsupportedMedia(Problem):
    """Bytes in none of the accepted formats."""

    slug, status, title = "unsupported-media", 415, "Not a picture in an accepted format"
    when = "not JPEG, PNG, WebP, AVIF, TIFF or GIF by its bytes, or a Content-Type or Content-Encoding we do not read"


class UndecodablePicture(Problem):
    """An accepted format, but broken."""

    slug, status, title = "undecodable-image", 422, "The picture is broken"
    when = "an accepted format, but broken or truncated"


class UnacceptablePicture(Problem):
    """A readable picture that is refused."""

    slug, status, title = "unacceptable-image", 422, "The picture is refused"
    when = "too many pixels or none, a side above 100,000 pixels, or a file made to take too much time or memory"


class OverQuota(Problem):
    """The client asks more often than it may."""

    slug, status, title = "over-quota", 429, "Too many requests of this client"
    when = "rate limits are on, and this client is over its own; `Retry-After` and `RateLimit` say when to come again"


class Conflict(Problem):
    """An idempotency key that stands for something else already."""

    slug, status, title = "conflict", 409, "The Idempotency-Key belongs to other feedback"
    when = "`/v1/feedback` only: the same `Idempotency-Key` came before with another content"


class NotStored(Problem):
    """Feedback that could not be kept."""

    slug, status, title = "not-stored", 503, "The feedback could not be kept at the moment"
    when = "`/v1/feedback` only: its database is away or full; send it again with the same `Idempotency-Key`"
    retry_after_s = 2.0


class InternalError(Problem):
    """Our own bug."""

    slug, status, title = "internal", 500, "The gateway failed"
    when = "anything else; the log has the cause under the request id"


class ContractBroken(Problem):
    """The model server answered something that serving.contract does not promise."""

    slug, status, title = "broken-contract", 502, "The model server gave an impossible answer"
    when = "the model server's reply has another dtype, shape or labels than promised, NaN, or an unexpected status"


class Overloaded(Problem):
    """The gateway has no place for this request now."""

    slug, status, title = "overloaded", 503, "Too many requests at the moment"
    when = "the gateway is full; `Retry-After` says when to come again"
    retry_after_s = 1.0


class ModelUnavailable(Problem):
    """No model server answers, or none has room."""

    slug, status, title = "model-unavailable", 503, "The model is not available at the moment"
    when = "the model server is away, full, or has not loaded the model; `Retry-After` says when to come again"
    retry_after_s = 2.0


class NotLoaded(ModelUnavailable):
    """The model server is there, but has not loaded the model."""


class NotReady(Problem):
    """What /readyz says when no request should be sent here."""

    slug, status, title = "not-ready", 503, "Not ready"
    when = "`/readyz` only: the model is not available, or the gateway is stopping"


class Expired(Problem):
    """The request's own time was over before the model was asked."""

    slug, status, title = "timeout", 504, "The time of the request was over"
    when = "the request's time (`X-Request-Timeout`, or the default) was over"


class ModelTimeout(Expired):
    """The model server did not answer in the time that was left."""


KINDS: Final = (
    BadRequest, Unauthorized, NotFound, MethodNotAllowed, SlowClient, Conflict, TooLarge, AddressTooLong,
    UnsupportedMedia, UndecodablePicture, UnacceptablePicture, OverQuota, HeadersTooLarge, ClientGone, InternalError,
    ContractBroken, Overloaded, ModelUnavailable, NotReady, NotStored, Expired,
)  # fmt: skip

_PICTURE_PROBLEMS: Final[dict[type[ImageError], type[Problem]]] = {
    UnsupportedFormat: UnsupportedMedia,
    UndecodableImage: UndecodablePicture,
    UnacceptableImage: UnacceptablePicture,
}


def of_picture(error: ImageError) -> Problem:
    """The problem that tells `error` of serving.images to the client."""
    return _PICTURE_PROBLEMS[type(error)](str(error))


def of_exception(error: Exception) -> Problem:
    """The problem that tells the client of any exception. What nobody expected is logged and told without internals."""
    if isinstance(error, Problem):
        if isinstance(error, ContractBroken):
            _tell(f"contract broken: {error.detail}", error)
        return error
    if isinstance(error, ImageError):
        return of_picture(error)
    if isinstance(error, HTTPException):
        return _of_http(error)
    _tell(f"unexpected {type(error).__name__}", error)
    return InternalError()


def _tell(message: str, error: Exception) -> None:
    """Log `error` with its cause, under the id that the client has."""
    log.error("%s", message, exc_info=error, extra={"fields": {"request_id": context.current().request_id}})


def _of_http(error: HTTPException) -> Problem:
    """Flask's and werkzeug's own refusals."""
    match error.code:
        case 404:
            return NotFound(f"there is no {request.path[:100]}")
        case 405:
            allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
            return MethodNotAllowed(f"use {allowed}", headers={"Allow": allowed})
        case 413:
            return TooLarge()
        case 415:
            return UnsupportedMedia()
        case code if code is not None and 400 <= code < 500:
            return BadRequest()
    _tell(f"unexpected {error}", error)
    return InternalError()


def of_no_request(problem: Problem, request_id: str) -> bytes:
    """A whole HTTP answer for bytes that did not become a request of the application; the connection ends with it."""
    body = json.dumps({**problem.document(), "request_id": request_id}).encode()
    head = (
        f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\nConnection: close\r\n"
        f"X-Request-ID: {request_id}\r\nContent-Type: {MEDIA_TYPE}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def install(app: Flask) -> None:
    """Answer every error of `app` with a problem document."""

    @app.errorhandler(Exception)
    def handle(error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.code is not None and 300 <= error.code < 400:
            return Response(status=error.code, headers=error.get_headers())
        problem = of_exception(error)
        context.current().problem = problem.slug
        return problem.response()


def markdown() -> str:
    """The table of all problem types, as it stands in the README."""
    rows = ["| type | status | when |", "|---|---|---|"]
    rows += [f"| `/problems/{kind.slug}` | {kind.status} | {kind.when} |" for kind in KINDS]
    return "\n".join(rows)


if __name__ == "__main__":
    print(markdown())
