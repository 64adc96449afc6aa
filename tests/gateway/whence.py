"""The command `whence` as a process, and what it wrote."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.gateway.conftest import BLUE, GREEN, RED
from tests.gateway.processes import ROOT

COLOURS = (RED, GREEN, BLUE)
NAMES = ("red", "green", "blue")


def command(url: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", "gateway.cli", "classify", "--url", url, *map(str, arguments)]


def whence(url: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command(url, *arguments), env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def begin(url: str, *arguments: object) -> subprocess.Popen[bytes]:
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command(url, *arguments), env=environ, stderr=subprocess.DEVNULL)


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.splitlines()))


def results(out: Path) -> list[dict[str, str]]:
    lines = out.read_text()
    return rows(lines) if out.suffix == ".csv" else [json.loads(line) for line in lines.splitlines()]


def wait_for(condition: Callable[[], bool], limit_s: float = 20) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
