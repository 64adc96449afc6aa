"""The OpenAPI 3.1 document of the HTTP API. tests/gateway/test_openapi.py holds the running gateway to it."""

from typing import Any

from gateway import errors, evidence_schemas
from gateway.errors import Problem
from gateway.settings import Settings
from serving import contract, images

_ANY_ROUTE: tuple[type[Problem], ...] = (errors.BadRequest, errors.InternalError)
_PICTURE_PROBLEMS = (errors.UnsupportedMedia, errors.UndecodablePicture, errors.UnacceptablePicture)
_GUARDED = (errors.Unauthorized, errors.OverQuota)
_PREDICT_PROBLEMS = (
    *_GUARDED,
    errors.SlowClient,
    errors.TooLarge,
    *_PICTURE_PROBLEMS,
    errors.ContractBroken,
    errors.Overloaded,
    errors.ModelUnavailable,
    errors.Expired,
)


def document(settings: Settings) -> dict[str, Any]:
    """The document, with the limits of `settings`."""
    paths = {"/v1/feedback": {"post": _feedback()}} if settings.feedback_database else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Whence",
            "version": "1",
            "description": "Tells which of its cultures a picture of an artwork resembles, or that it does not know.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/v1/predict": {"post": _predict(settings)},
            "/predict/": {"post": _predict_as_before()},
            **paths,
            "/v1/models": {
                "get": _operation(
                    "models",
                    "Which versions of the model are there?",
                    _json("Models", "Each version and its state."),
                    *_GUARDED,
                    errors.ModelUnavailable,
                    errors.ContractBroken,
                    errors.Expired,
                )
            },
            "/healthz": {"get": _operation("live", "Is this process alive?", _json("Status", "It is."))},
            "/readyz": {
                "get": _operation(
                    "ready", "Would a picture be answered now?", _json("Status", "It would."), errors.NotReady
                )
            },
            "/metrics": {"get": _operation("metrics", "Metrics for Prometheus.", _text("The metrics."))},
            "/openapi.json": {"get": _operation("openapi", "This document.", _any_json("The document."))},
        },
        "components": {"schemas": _schemas(), "parameters": _parameters(settings), "headers": _headers()},
    }


def _predict(settings: Settings) -> dict[str, Any]:
    binary: dict[str, Any] = {"schema": {}}  # any bytes: OpenAPI 3.1 has no better word
    operation = _operation(
        "predict",
        "Classify one picture, or several at once.",
        _json("Predictions", "A prediction for each picture; in a batch a problem stands in for a prediction."),
        *_PREDICT_PROBLEMS,
    )
    operation["responses"]["200"]["content"] |= evidence_schemas.OVERLAY
    return operation | {
        "description": (
            f"At most {settings.max_pictures} pictures of {settings.max_upload_bytes:,} bytes and "
            f"{settings.max_pixels:,} pixels each, in {', '.join(images.FORMATS)}, by their bytes, not by their name. "
            "One picture that cannot be read is a problem of the request; in a batch it is a problem of its item."
        ),
        "parameters": [
            *operation["parameters"],
            {
                "name": "top_k",
                "in": "query",
                "description": "How many cultures to list; all when absent.",
                "schema": {"type": "integer", "minimum": 1, "maximum": 1000},
            },
            *evidence_schemas.PARAMETERS,
        ],
        "requestBody": {
            "required": True,
            "content": {
                "image/*": binary,
                "application/octet-stream": binary,
                "multipart/form-data": {"schema": {"$ref": "#/components/schemas/Files"}},
                "application/json": {"schema": {"$ref": "#/components/schemas/Images"}},
            },
        },
    }


def _predict_as_before() -> dict[str, Any]:
    operation = _operation(
        "predictAsBefore", "The call of the original project.", _json("Label", "The likeliest culture."),
        *_PREDICT_PROBLEMS,
    )  # fmt: skip
    schema = {"schema": {"$ref": "#/components/schemas/File"}}
    return operation | {"requestBody": {"required": True, "content": {"multipart/form-data": schema}}}


def _feedback() -> dict[str, Any]:
    operation = _operation(
        "feedback",
        "Say which culture a picture comes from, after an answer. Never send the picture.",
        _json("FeedbackKept", "It was kept before, under the same key."),
        errors.SlowClient,
        errors.TooLarge,
        errors.UnsupportedMedia,
        errors.Overloaded,
        errors.Conflict,
        errors.NotStored,
        *_GUARDED,
    )
    operation["responses"]["201"] = _json("FeedbackKept", "It is kept: on the disk when this is answered.")
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/Feedback"}}}
    return operation | {
        "parameters": [*operation["parameters"], evidence_schemas.FEEDBACK_KEY],
        "requestBody": {"required": True, "content": body},
    }


def _operation(name: str, summary: str, good: dict[str, Any], *problems: type[Problem]) -> dict[str, Any]:
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


def _json(schema: str, text: str) -> dict[str, Any]:
    return _good(text, {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}})


def _any_json(text: str) -> dict[str, Any]:
    return _good(text, {"application/json": {"schema": {"type": "object"}}})


def _text(text: str) -> dict[str, Any]:
    return _good(text, {"text/plain": {"schema": {"type": "string"}}})


def _good(text: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "description": text,
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}},
        "content": content,
    }


def _object(properties: dict[str, Any], *optional: str, closed: bool = True) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required} | (
        {"additionalProperties": False} if closed else {}
    )


def _schemas() -> dict[str, Any]:
    culture = {"type": "string", "examples": ["Japanese"]}
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    file = {"type": "string", "contentMediaType": "application/octet-stream", "description": "A picture's bytes."}
    item_problem = {"type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"}}
    item_problem["detail"] = {"type": "string"}
    return {
        "Files": _object({"file": {"type": "array", "items": file, "minItems": 1, "maxItems": 32}}, closed=False),
        "File": _object({"file": file}, closed=False),
        "Images": _object(
            {
                "images": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": 32,
                    "items": _object(
                        {"b64": {"type": "string", "contentEncoding": "base64"}, "filename": {"type": "string"}},
                        "filename",
                        closed=False,
                    ),
                }
            },
            closed=False,
        ),
        "Predictions": _object(
            {
                "request_id": {"type": "string"},
                "model": _object({"name": {"type": "string"}, "version": {"type": ["integer", "null"]}}),
                "predictions": {
                    "type": "array",
                    "items": {
                        "oneOf": [
                            {"$ref": "#/components/schemas/Prediction"},
                            _object(
                                {"filename": {"type": "string"}, "problem": _object(item_problem)},
                                "filename",
                            ),
                        ]
                    },
                },
            }
        ),
        "Prediction": _object(
            {
                "filename": {"type": "string"},
                "culture": culture | {"description": "The picture resembles objects catalogued as this."},
                "probability": probability,
                "decision": {
                    "enum": list(contract.DECISIONS),
                    "description": "`abstained`: too unsure to tell; `out_of_distribution`: like nothing it knows.",
                },
                "top": {"type": "array", "items": _object({"culture": culture, "probability": probability})},
                "explanation": {"$ref": "#/components/schemas/Explanation"},
            },
            "filename",
            "explanation",
        ),
        **evidence_schemas.SCHEMAS,
        "Models": _object(
            {
                "models": {
                    "type": "array",
                    "items": _object(
                        {
                            "name": {"type": "string"},
                            "versions": {
                                "type": "array",
                                "items": _object({"version": {"type": "integer"}, "state": {"type": "string"}}),
                            },
                        }
                    ),
                }
            }
        ),
        "Label": _object({"class_label": culture}),
        "Status": _object({"status": {"type": "string"}}),
        "Problem": _object(
            {
                "type": {"enum": [f"/problems/{kind.slug}" for kind in errors.KINDS]},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "request_id": {"type": "string"},
            }
        )
        | {"description": "RFC 9457."},
    }


def _parameters(settings: Settings) -> dict[str, Any]:
    return {
        "RequestId": {
            "name": "X-Request-ID",
            "in": "header",
            "description": "Comes back and stands in the logs; replaced when it is not safe.",
            "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
        },
        "RequestTimeout": {
            "name": "X-Request-Timeout",
            "in": "header",
            "description": (
                f"The request's whole time in seconds, {settings.request_timeout_s:g} when absent, "
                f"cut at {settings.max_request_timeout_s:g}."
            ),
            "schema": {"type": "number", "exclusiveMinimum": 0},
        },
    }


def _headers() -> dict[str, Any]:
    return {
        "RequestId": {"required": True, "schema": {"type": "string"}},
        "RetryAfter": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}},
    }
