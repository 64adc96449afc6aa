"""The manifests as a cluster would get them: rendered by `kubectl kustomize`, read with PyYAML."""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
K8S: Final = ROOT / "k8s"

Object = dict[str, Any]

# Everything that someone may apply: an overlay, and the components put on top of it.
VARIANTS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "cpu": ("cpu", ()),
    "gpu": ("gpu", ()),
    "embedded": ("embedded", ()),
    "embedded+int8": ("embedded", ("int8",)),
    "cpu+keda": ("cpu", ("keda",)),
    "gpu+keda": ("gpu", ("keda",)),
    "cpu+canary": ("cpu", ("canary",)),
    "gpu+canary": ("gpu", ("canary",)),
    "embedded+canary": ("embedded", ("canary",)),
    "cpu+ingress": ("cpu", ("ingress",)),
}


@functools.cache
def render(variant: str, images: tuple[tuple[str, str, str], ...] = ()) -> tuple[Object, ...]:
    """The objects of a variant; `images` are name, newName and newTag. Skips the test where there is no kubectl."""
    kubectl = shutil.which("kubectl")
    if not kubectl:
        pytest.skip("no kubectl on PATH: manifests cannot be rendered")
    overlay, components = VARIANTS[variant]
    # As a user's own overlay would, from outside the tree; kustomize wants relative paths.
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder).resolve()
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "whence",
            "resources": [os.path.relpath(K8S / "overlays" / overlay, here)],
            "components": [os.path.relpath(K8S / "components" / name, here) for name in components],
            "images": [dict(zip(("name", "newName", "newTag"), each, strict=True)) for each in images],
        }
        (here / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        done = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(found for found in yaml.safe_load_all(done.stdout) if found)


def of_kind(objects: Iterable[Object], kind: str) -> list[Object]:
    """The objects of one kind."""
    return [each for each in objects if each["kind"] == kind]


def named(objects: Iterable[Object], kind: str, name: str) -> Object:
    """The one object of a kind and name."""
    (found,) = [each for each in of_kind(objects, kind) if each["metadata"]["name"] == name]
    return found


def pod(workload: Object) -> Object:
    """The pod's spec of a Deployment."""
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Object) -> Object:
    """The one container of a Deployment."""
    (found,) = pod(workload)["containers"]
    return dict(found)


def labels(workload: Object) -> dict[str, str]:
    """The labels of a Deployment's pods."""
    found: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return found


def matches(selector: Object, of: dict[str, str]) -> bool:
    """Whether a selector without expressions takes something with these labels."""
    assert set(selector) <= {"matchLabels"}, f"not understood here: {selector}"
    return all(of.get(key) == value for key, value in selector.get("matchLabels", {}).items())
