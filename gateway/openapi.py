"""The OpenAPI 3.1 document of the HTTP API. tests/gateway/test_openapi.py holds the running gateway to it."""

from typing import Any

from gateway import errors, evidence_schemas, inference_openapi
from gateway.operations import (
    GUARDED,
    PREDICT_PROBLEMS,
    any_json,
    json_answer,
    operation,
    properties_of,
    text_answer,
)
from gateway.settings import Settings
from serving import contract, images


def document(settings: Settings) -> dict[str, Any]:
    """The document, with the limits of `settings`."""
    paths = {"/v1/feedback": {"post": _feedback()}} if settings.feedback_database else {}
    told: dict[str, Any] = {
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
                "get": operation(
                    "models",
                    "Which versions of the model are there?",
                    json_answer("Models", "Each version and its state."),
                    *GUARDED,
                    errors.ModelUnavailable,
                    errors.ContractBroken,
                    errors.Expired,
                )
            },
            **inference_openapi.PATHS,
            "/healthz": {"get": operation("live", "Is this process alive?", json_answer("Status", "It is."))},
            "/readyz": {
                "get": operation(
                    "ready", "Would a picture be answered now?", json_answer("Status", "It would."), errors.NotReady
                )
            },
            "/metrics": {"get": operation("metrics", "Metrics for Prometheus.", text_answer("The metrics."))},
            "/openapi.json": {"get": operation("openapi", "This document.", any_json("The document."))},
        },
        "components": {"schemas": _schemas(settings), "parameters": _parameters(settings), "headers": _headers()},
    }
    if settings.api_keys_file:
        _lock(told)
    return told


def _lock(told: dict[str, Any]) -> None:
    """Say of each operation that may be refused for want of a key how to send one."""
    told["components"]["securitySchemes"] = {
        "Bearer": {"type": "http", "scheme": "bearer"},
        "Key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    for methods in told["paths"].values():
        for each in methods.values():
            if str(errors.Unauthorized.status) in each["responses"]:
                each["security"] = [{"Bearer": []}, {"Key": []}]


def _predict(settings: Settings) -> dict[str, Any]:
    binary: dict[str, Any] = {"schema": {}}  # any bytes: OpenAPI 3.1 has no better word
    answers = operation(
        "predict",
        "Classify one picture, or several at once.",
        json_answer("Predictions", "A prediction for each picture; in a batch a problem stands in for a prediction."),
        *PREDICT_PROBLEMS,
    )
    answers["responses"]["200"]["content"] |= evidence_schemas.OVERLAY
    return answers | {
        "description": (
            f"At most {settings.max_pictures} pictures of {settings.max_upload_bytes:,} bytes and "
            f"{settings.max_pixels:,} pixels each, in {', '.join(images.FORMATS)}, by their bytes, not by their name. "
            "One picture that cannot be read is a problem of the request; in a batch it is a problem of its item."
        ),
        "parameters": [
            *answers["parameters"],
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
    answers = operation(
        "predictAsBefore", "The call of the original project.", json_answer("Label", "The likeliest culture."),
        *PREDICT_PROBLEMS,
    )  # fmt: skip
    schema = {"schema": {"$ref": "#/components/schemas/File"}}
    return answers | {"requestBody": {"required": True, "content": {"multipart/form-data": schema}}}


def _feedback() -> dict[str, Any]:
    answers = operation(
        "feedback",
        "Say which culture a picture comes from, after an answer. Never send the picture.",
        json_answer("FeedbackKept", "It was kept before, under the same key."),
        errors.SlowClient,
        errors.TooLarge,
        errors.UnsupportedMedia,
        errors.Overloaded,
        errors.Conflict,
        errors.NotStored,
        *GUARDED,
    )
    answers["responses"]["201"] = json_answer("FeedbackKept", "It is kept: on the disk when this is answered.")
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/Feedback"}}}
    return answers | {
        "parameters": [*answers["parameters"], evidence_schemas.FEEDBACK_KEY],
        "requestBody": {"required": True, "content": body},
    }


def _schemas(settings: Settings) -> dict[str, Any]:
    culture = {"type": "string", "examples": ["Japanese"]}
    probability = {"type": "number", "minimum": 0, "maximum": 1}
    several = {"type": "array", "minItems": 1, "maxItems": settings.max_pictures}
    file = {"type": "string", "contentMediaType": "application/octet-stream", "description": "A picture's bytes."}
    item_problem = {"type": {"type": "string"}, "title": {"type": "string"}, "status": {"type": "integer"}}
    item_problem["detail"] = {"type": "string"}
    return {
        "Files": properties_of({"file": several | {"items": file}}, closed=False),
        "File": properties_of({"file": file}, closed=False),
        "Images": properties_of(
            {
                "images": several
                | {
                    "items": properties_of(
                        {"b64": {"type": "string", "contentEncoding": "base64"}, "filename": {"type": "string"}},
                        "filename",
                        closed=False,
                    ),
                }
            },
            closed=False,
        ),
        "Predictions": properties_of(
            {
                "request_id": {"type": "string"},
                "model": properties_of({"name": {"type": "string"}, "version": {"type": ["integer", "null"]}}),
                "predictions": {
                    "type": "array",
                    "items": {
                        "oneOf": [
                            {"$ref": "#/components/schemas/Prediction"},
                            properties_of(
                                {"filename": {"type": "string"}, "problem": properties_of(item_problem)},
                                "filename",
                            ),
                        ]
                    },
                },
            }
        ),
        "Prediction": properties_of(
            {
                "filename": {"type": "string"},
                "culture": culture | {"description": "The picture resembles objects catalogued as this."},
                "probability": probability,
                "decision": {
                    "enum": list(contract.DECISIONS),
                    "description": "`abstained`: too unsure to tell; `out_of_distribution`: like nothing it knows.",
                },
                "top": {"type": "array", "items": properties_of({"culture": culture, "probability": probability})},
                "explanation": {"$ref": "#/components/schemas/Explanation"},
            },
            "filename",
            "explanation",
        ),
        **evidence_schemas.SCHEMAS,
        **inference_openapi.SCHEMAS,
        "Models": properties_of(
            {
                "models": {
                    "type": "array",
                    "items": properties_of(
                        {
                            "name": {"type": "string"},
                            "versions": {
                                "type": "array",
                                "items": properties_of({"version": {"type": "integer"}, "state": {"type": "string"}}),
                            },
                        }
                    ),
                }
            }
        ),
        "Label": properties_of({"class_label": culture}),
        "Status": properties_of({"status": {"type": "string"}}),
        "Problem": properties_of(
            {
                "type": {"enum": [f"/problems/{kind.slug}" for kind in errors.KINDS]},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "request_id": {"type": "string"},
                "error": {"type": "string", "description": "Under /v2 only: the detail, where that protocol has it."},
            },
            "error",
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
