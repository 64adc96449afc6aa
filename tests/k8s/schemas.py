"""Manifests against the schemas of Kubernetes' own releases, and custom resources against their definitions."""

import copy
import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest
import yaml

from tests.k8s.manifests import ROOT, Object

# Oldest, middle and newest release that we say we support; the README names the first.
RELEASES: Final = ("1.28", "1.32", "1.37")
# Definitions of the Prometheus operator's resources, where the checkout has them beside it.
DEFINITIONS: Final = ROOT.parent / "shared" / "crds"
OPERATOR: Final = "monitoring.coreos.com/v1"
KEDA: Final = "keda.sh/v1alpha1"

# KEDA's definitions are not at hand: what we use of them, closed against typing errors.
_SCALED_OBJECT: Final = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["scaleTargetRef", "triggers"],
            "properties": {
                "scaleTargetRef": {"type": "object", "required": ["name"]},
                "minReplicaCount": {"type": "integer", "minimum": 0},
                "maxReplicaCount": {"type": "integer", "minimum": 1},
                "pollingInterval": {"type": "integer", "minimum": 1},
                "advanced": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["horizontalPodAutoscalerConfig"],
                    "properties": {
                        "horizontalPodAutoscalerConfig": {
                            "type": "object",
                            "additionalProperties": False,
                            "required": ["behavior"],
                            "properties": {"behavior": {"type": "object"}},
                        }
                    },
                },
                "fallback": {"type": "object", "required": ["failureThreshold", "replicas"]},
                "triggers": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["type", "metadata"],
                        "properties": {
                            "type": {"const": "prometheus"},
                            "metricType": {"enum": ["AverageValue", "Value"]},
                            "metadata": {
                                "type": "object",
                                "required": ["serverAddress", "query", "threshold"],
                                "additionalProperties": {"type": "string"},
                            },
                        },
                    },
                },
            },
        }
    },
}


def problems(objects: Iterable[Object]) -> list[str]:
    """What the built-in resources break, in any of the releases. Skips where the schemas are not installed."""
    pytest.importorskip("kubernetes_validate", reason="kubernetes-validate (group deploy) is not installed")
    builtin = [each for each in objects if each["apiVersion"] not in (OPERATOR, KEDA)]
    return [problem for each in builtin for release in RELEASES for problem in _problems(json.dumps(each), release)]


@functools.cache  # the variants have most objects in common
def _problems(text: str, release: str) -> tuple[str, ...]:
    import kubernetes_validate as validate

    found = json.loads(text)
    try:
        validate.validate(found, release, strict=True)
    except (validate.ValidationError, validate.SchemaNotFoundError) as error:
        place = ".".join(map(str, getattr(error, "path", ())))
        return (f"[{release}] {found['kind']} {place}: {getattr(error, 'message', error)}",)
    return ()


def custom_problems(objects: Iterable[Object]) -> list[str]:
    """What the custom resources break. Skips where their definitions are not at hand."""
    if not DEFINITIONS.is_dir():
        pytest.skip("the Prometheus operator's definitions are not beside this checkout")
    schemas = _definitions(DEFINITIONS) | {(KEDA, "ScaledObject"): _SCALED_OBJECT}
    return [
        f"{each['kind']} {'.'.join(map(str, error.path))}: {error.message[:200]}"
        for each in objects
        if each["apiVersion"] in (OPERATOR, KEDA)
        for error in jsonschema.Draft202012Validator(schemas[each["apiVersion"], each["kind"]]).iter_errors(each)
    ]


def _definitions(folder: Path) -> dict[tuple[str, str], Any]:
    found = {}
    for path in folder.glob("*.yaml"):
        definition = yaml.safe_load(path.read_text())["spec"]
        for version in definition["versions"]:
            schema = copy.deepcopy(version["schema"]["openAPIV3Schema"])
            _close(schema)
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{definition['group']}/{version['name']}", definition["names"]["kind"]] = schema
    return found


def _close(schema: Any) -> None:
    """Close every object whose fields are listed, as `kubectl apply --validate=strict` does."""
    if isinstance(schema, list):
        for item in schema:
            _close(item)
    if not isinstance(schema, dict):
        return
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    if schema.pop("x-kubernetes-int-or-string", None):
        schema.pop("anyOf", None)
        schema["type"] = ["integer", "string"]
    for value in schema.values():
        _close(value)
