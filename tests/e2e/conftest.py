"""The system with the released model, started once for all tests that do not break it."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.system import ROOT, System, running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("e2e")


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with running(tmp_path_factory.mktemp("system") / "log") as started:
        yield started


@pytest.fixture(scope="session")
def client(system: System) -> Iterator[httpx.Client]:
    with system.client() as opened:
        yield opened


@pytest.fixture(scope="session")
def release() -> dict[str, object]:
    loaded: dict[str, object] = json.loads((ROOT / "training/release/release.json").read_text())
    return loaded
