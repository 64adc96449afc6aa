"""Tiny SavedModels, made once, and a server on them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.serving.running import Client

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before anything imports TensorFlow

# TensorFlow is imported inside the fixtures, so that tests of this folder which need none do not wait for it.


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version directory of the zoo."""
    from tests.serving.zoo import save

    return save(tmp_path_factory.mktemp("zoo") / "saved", bias=1.0)


@pytest.fixture(scope="session")
def zoo_of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another version directory of the zoo, which adds 2 instead of 1."""
    from tests.serving.zoo import save

    return save(tmp_path_factory.mktemp("zoo") / "saved", bias=2.0)


@pytest.fixture
def base_path(tmp_path: Path, zoo: Path) -> Path:
    """A model's folder with version 1 of the zoo in it."""
    from tests.serving.zoo import publish

    publish(zoo, tmp_path / "zoo", 1)
    return tmp_path / "zoo"


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, str], Path]:
    """Writes a configuration file and returns its path."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, zoo: Path) -> "Iterator[Client]":
    """A server on version 1 of the zoo, batching up to 4 rows, that a module's tests share."""
    from tests.serving.running import running
    from tests.serving.zoo import publish

    folder = tmp_path_factory.mktemp("server")
    publish(zoo, folder / "models/zoo", 1)
    (folder / "models.config").write_text('model_config_list { config { name: "zoo" base_path: "models/zoo" } }')
    (folder / "batching.config").write_text("max_batch_size { value: 4 } max_enqueued_batches { value: 100 }")
    (folder / "monitoring.config").write_text("prometheus_config { enable: true }")
    argv = [
        f"--model_config_file={folder}/models.config",
        f"--batching_parameters_file={folder}/batching.config",
        f"--monitoring_config_file={folder}/monitoring.config",
    ]
    with running(argv) as client:
        yield client
