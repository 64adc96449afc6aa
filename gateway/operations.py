"""How one operation is told in OpenAPI: its good answer, and its problems grouped by status."""

from typing import Any, Final

from gateway import errors
from gateway.errors import Problem

_ANY_ROUTE: Final[tuple[type[Problem], ...]] = (errors.BadRequest, errors.InternalError)
GUARDED: Final[tuple[type[Problem], ...]] = (errors.Unauthorized, errors.OverQuota)
MODEL_PROBLEMS: Final[tuple[type[Problem], ...]] = (errors.ContractBroken, errors.ModelUnavailable, errors.Expired)
PREDICT_PROBLEMS: Final[tuple[type[Problem], ...]] = (
    *GUARDED,
    errors.SlowClient,
    errors.TooLarge,
    errors.UnsupportedMedia,
    errors.UndecodablePicture,
    errors.UnacceptablePicture,
    errors.Overloaded,
    *MODEL_PROBLEMS,
)


def operation(name: str, summary: str, good: dict[str, Any], *problems: type[Problem]) -> dict[str, Any]:
    """An operation with its good answer and its problems, grouped by status."""
    kinds: dict[int, list[type[Problem]]] = {}
    for kind in (*_ANY_ROUTE, *problems):
        kinds.setdefault(kind.status, []).append(kind)
    return {
        "operationId": name,
        "summary": summary,
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in ("RequestId", "RequestTimeout")],
        "responses": {"200": good} | {str(status): _problems(same) for status, same in sorted(kinds.items())},
    }


def _problems(kinds: list[type[Problem]]) -> dict[str, Any]:
    headers = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
    if any(kind.retry_after_s for kind in kinds):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    return {
        "description": "; ".join(f"`/problems/{kind.slug}`: {kind.when}" for kind in kinds),
        "headers": headers,
        "content": {errors.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }


def json_answer(schema: str, text: str) -> dict[str, Any]:
    """A good answer of a named schema."""
    return _good(text, {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}})


def any_json(text: str) -> dict[str, Any]:
    """A good answer of some JSON object."""
    return _good(text, {"application/json": {"schema": {"type": "object"}}})


def text_answer(text: str) -> dict[str, Any]:
    """A good answer in plain text."""
    return _good(text, {"text/plain": {"schema": {"type": "string"}}})


def _good(text: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": text,
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}},
        "content": content,
    }


def properties_of(properties: dict[str, Any], *optional: str, closed: bool = True) -> dict[str, Any]:
    """The schema of an object; `closed` when it has no other members."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required} | (
        {"additionalProperties": False} if closed else {}
    )
