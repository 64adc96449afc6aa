"""The part of the OpenAPI document that tells of the Open Inference Protocol."""

from typing import Any, Final

from gateway import errors
from gateway.operations import (
    GUARDED,
    MODEL_PROBLEMS,
    PREDICT_PROBLEMS,
    any_json,
    json_answer,
    operation,
    properties_of,
)
from gateway.v2 import LENGTH_HEADER
from serving import contract

_NAME: Final = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
_NUMBER: Final = {
    "name": "number",
    "in": "path",
    "required": True,
    "schema": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1},
}
_MODEL: Final = (*GUARDED, *MODEL_PROBLEMS, errors.NotFound)
_DATA: Final[dict[str, Any]] = {"type": "array", "description": "Flat or nested, in row-major order."}
_SHAPE: Final = {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1}


def _of_model(prefix: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    """The paths of a model, or of one of its versions; `prefix` makes their names differ."""
    path = "/v2/models/{name}" + ("/versions/{number}" if _NUMBER in parameters else "")
    asked = operation(f"{prefix}Metadata", "What goes in, what comes out?", any_json("Its tensors."), *_MODEL)
    ready = operation(f"{prefix}Ready", "Is it loaded?", any_json("It is."), *_MODEL, errors.NotReady)
    infer = operation(
        f"{prefix}Infer",
        "Its outputs for pixels or for encoded pictures.",
        _inferred(),
        *PREDICT_PROBLEMS,
        errors.NotFound,
    )
    infer["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}},
            "application/octet-stream": {"schema": {}},
        },
    }
    binary = {
        "name": LENGTH_HEADER,
        "in": "header",
        "description": "Length of the JSON, when tensors follow it in the binary form.",
        "schema": {"type": "integer", "minimum": 0},
    }
    for each in (asked, ready, infer):
        each["parameters"] = [*parameters, *each["parameters"]]
    infer["parameters"].append(binary)
    return {path: {"get": asked}, f"{path}/ready": {"get": ready}, f"{path}/infer": {"post": infer}}


def _inferred() -> dict[str, Any]:
    answer = json_answer("InferResponse", "A tensor for each output; binary where the request wants it.")
    answer["content"]["application/octet-stream"] = {"schema": {}}
    return answer


PATHS: Final[dict[str, Any]] = {
    "/v2": {"get": operation("server", "Who answers?", any_json("Name, version, extensions."), *GUARDED)},
    "/v2/health/live": {"get": operation("serverLive", "Is this process alive?", any_json("It is."))},
    "/v2/health/ready": {
        "get": operation("serverReady", "Would a picture be answered now?", any_json("It would."), errors.NotReady)
    },
    **_of_model("model", _NAME),
    **_of_model("version", _NAME, _NUMBER),
}

SCHEMAS: Final[dict[str, Any]] = {
    "InferRequest": properties_of(
        {
            "id": {"type": "string"},
            "inputs": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1,
                "items": properties_of(
                    {
                        "name": {"const": contract.INPUT},
                        "datatype": {
                            "enum": ["UINT8", "BYTES"],
                            "description": "RGB pixels of shape [N, 224, 224, 3], or pictures as base64 of shape [N].",
                        },
                        "shape": _SHAPE,
                        "data": _DATA,
                        "parameters": {"type": "object"},
                    },
                    "data",
                    "parameters",
                    closed=False,
                ),
            },
            "outputs": {
                "type": "array",
                "items": properties_of(
                    {"name": {"type": "string"}, "parameters": {"type": "object"}}, "parameters", closed=False
                ),
            },
            "parameters": {"type": "object"},
        },
        "id",
        "outputs",
        "parameters",
        closed=False,
    ),
    "InferResponse": properties_of(
        {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {
                "type": "array",
                "items": properties_of(
                    {
                        "name": {"type": "string"},
                        "datatype": {"enum": ["FP32", "BYTES"]},
                        "shape": _SHAPE,
                        "data": _DATA,
                        "parameters": {"type": "object"},
                    },
                    "data",
                    "parameters",
                ),
            },
        },
        "id",
    ),
}
