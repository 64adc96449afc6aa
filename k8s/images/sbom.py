"""What is installed in a site-packages folder, as a CycloneDX 1.5 document on standard output.

    python sbom.py NAME VERSION SITE_PACKAGES

Standard library only: it runs in a build stage where nothing else is installed. The same input gives the same bytes.
"""

import json
import sys
from importlib.metadata import Distribution, distributions
from typing import Any


def document(name: str, version: str, folder: str) -> dict[str, Any]:
    """The CycloneDX document of the image `name`; components in order of their names."""
    components = sorted((_component(found) for found in distributions(path=[folder])), key=lambda item: item["purl"])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": name, "version": version}},
        "components": components,
    }


def _component(found: Distribution) -> dict[str, Any]:
    name, version = found.metadata["Name"], found.version
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{version}"
    component = {"type": "library", "name": name, "version": version, "purl": purl, "bom-ref": purl}
    fields = [field for field in ("License-Expression", "License") if field in found.metadata]
    if fields:
        licence = found.metadata[fields[0]]
        # Some projects put the whole text there: its first line names it.
        component["licenses"] = [{"license": {"name": licence.strip().splitlines()[0][:100]}}]  # type: ignore[assignment]
    return component


if __name__ == "__main__":
    print(json.dumps(document(*sys.argv[1:4]), indent=2))
