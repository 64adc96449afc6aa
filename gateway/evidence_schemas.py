"""The parts of the OpenAPI document that tell of evidence and of feedback."""

from typing import Any, Final

from gateway import explanations
from gateway.feedback.entries import MAX_NOTE, PATTERNS

PARAMETERS: Final[tuple[dict[str, Any], ...]] = (
    {
        "name": "explain",
        "in": "query",
        "description": (
            "Evidence beside each prediction, as `explanation`: where the model looked, which objects the picture "
            "resembles, why it decided so, what is needed to repeat the answer, the upright picture itself as a small "
            "JPEG. Several, separated by commas."
        ),
        "style": "form",
        "explode": False,
        "schema": {"type": "array", "items": {"enum": list(explanations.KINDS)}, "minItems": 1},
    },
    {
        "name": "culture",
        "in": "query",
        "description": "With explain=heatmap: whose map; the answered culture's when absent.",
        "schema": {"type": "string"},
    },
    {
        "name": "k",
        "in": "query",
        "description": f"With explain=neighbours: how many; {explanations.DEFAULT_NEIGHBOURS} when absent.",
        "schema": {"type": "integer", "minimum": 1, "maximum": explanations.MAX_NEIGHBOURS},
    },
)
OVERLAY: Final[dict[str, Any]] = {
    "image/png": {
        "schema": {"description": "explain=heatmap for one picture, with `Accept: image/png`: map over picture."}
    }
}
FEEDBACK_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key with the same content is kept once, however often it is sent.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
}

_TEXT: Final = {"type": "string"}
_NUMBER: Final = {"type": "number"}
_NUMBER_OR_NONE: Final = {"type": ["number", "null"]}
_SIDE: Final = {"type": "integer", "minimum": 1, "maximum": explanations.PREVIEW_SIDE}
_TEXT_OR_NONE: Final = {"type": ["string", "null"]}


def _object(properties: dict[str, Any], *optional: str) -> dict[str, Any]:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _art_object() -> dict[str, Any]:
    names = ("title", "artist", "date", "culture", "source", "object_id", "url", "licence")
    similarity = _NUMBER | {"description": "Cosine, at most 1.", "maximum": 1}
    return _object(dict.fromkeys(names, _TEXT) | {"similarity": similarity})


_HEATMAP: Final = _object(
    {
        "culture": _TEXT,
        "png": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"},
        "scale": _TEXT,
        "lowest": _NUMBER,
        "highest": _NUMBER,
    }
)

SCHEMAS: Final[dict[str, Any]] = {
    "Explanation": _object(
        {
            "heatmap": _HEATMAP,
            "heatmaps": {
                "type": "array",
                "items": _HEATMAP,
                "maxItems": explanations.MAX_HEATMAPS,
                "description": "Of the likeliest cultures, likeliest first.",
            },
            "neighbours": _object(
                {
                    "index": {
                        "oneOf": [
                            _object(
                                {"version": _TEXT, "objects": {"type": "integer"}, "about": _TEXT}, "objects", "about"
                            ),
                            {"type": "null"},
                        ]
                    },
                    "objects": {"type": "array", "items": _art_object()},
                    "notice": _TEXT | {"description": "Why there are no objects."},
                },
                "notice",
            ),
            "decision": _object(
                {
                    "reason": _TEXT,
                    "probability": _NUMBER,
                    "ood_score": _NUMBER_OR_NONE,
                    "thresholds": _object(
                        {"least_probability": _NUMBER_OR_NONE, "greatest_ood_score": _NUMBER_OR_NONE}
                    ),
                }
            ),
            "provenance": _object(
                {
                    "picture_sha256": _TEXT,
                    "pixels_sha256": _TEXT,
                    "pixels": _TEXT,
                    "software": _object({"pillow": _TEXT, "libjpeg": _TEXT_OR_NONE}),
                    "model": {"type": "object", "description": "Name, version, and what the servable says of itself."},
                    "index_version": _TEXT_OR_NONE,
                }
            ),
            "preview": _object({"jpeg": _TEXT | {"contentEncoding": "base64"}, "width": _SIDE, "height": _SIDE}),
        },
        *explanations.KINDS,
    )
    | {"description": "What `explain` asked for."},
    "Feedback": _object(
        {name: {"type": "string", "pattern": f"^{pattern}$"} for name, (pattern, _) in PATTERNS.items()}
        | {"note": {"type": "string", "maxLength": MAX_NOTE}},
        "picture_sha256",
        "note",
    ),
    "FeedbackKept": _object({"request_id": _TEXT, "received_at": _TEXT, "repeated": {"type": "boolean"}}),
}
