"""The README's first commands do what it says, against the running system."""

import json
import re
import shutil
import subprocess
from typing import Any

import pytest

from tests.system import ROOT, System

README = (ROOT / "README.md").read_text()
# The calls whose replies are shown in full; others name pictures that the reader has.
BLOCKS = re.findall(r"```console\n\$ (curl [^\n]*json\.tool)\n(.*?)```", README, re.DOTALL)


def close(said: Any, found: Any) -> bool:
    """The same document, but for the request's own id and the last digits of a probability."""
    if isinstance(said, dict):
        return said.keys() == found.keys() and all(
            name == "request_id" or close(said[name], found[name]) for name in said
        )
    if isinstance(said, list):
        return len(said) == len(found) and all(map(close, said, found))
    return bool(found == pytest.approx(said, abs=0.01)) if isinstance(said, float) else bool(said == found)


def test_readme_shows_at_least_one_call() -> None:
    assert BLOCKS


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
@pytest.mark.parametrize(("command", "reply"), BLOCKS, ids=range(len(BLOCKS)))
def test_readme_curl_answers_what_the_readme_shows(command: str, reply: str, system: System) -> None:
    command = command.replace("http://127.0.0.1:8080", system.url)
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert close(json.loads(reply), json.loads(done.stdout)), done.stdout
