"""`python -m training release`: the release with all that is made from it, at once or not at all."""

import json
import shutil
from pathlib import Path

import pytest

from serving.index import Index
from serving.reference import Reference
from training.checkpoint import FACTS, WEIGHTS, digest
from training.config import TrainConfig
from training.publish import publish
from training.quantize import load_ranges
from training.release import Regression

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]  # TensorFlow and Keras warn about themselves


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory, finished_run: TrainConfig) -> Path:
    """A manifest of two pictures."""
    folder = tmp_path_factory.mktemp("sample")
    names = ["0.png", "1.png"]
    for name in names:
        shutil.copy(finished_run.data / "images/Striped" / name, folder)
    (folder / "samples.csv").write_text("\n".join(["file,title", *(f"{name},Stripes" for name in names)]) + "\n")
    return folder / "samples.csv"


@pytest.fixture(scope="module")
def published(finished_run: TrainConfig, sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release of a run that was trained on everything."""
    out = tmp_path_factory.mktemp("publish") / "release"
    publish(finished_run.run.with_name("final"), out, sample=sample)
    return out


def test_everything_in_a_release_is_of_its_own_weights(published: Path) -> None:
    weights = digest(published / WEIGHTS)
    assert len(load_ranges(published)) == 12
    assert Index(published / "index/1").facts.release_sha256 == weights
    assert Reference.load(published / "reference.json").release_sha256 == weights


def test_nothing_else_is_left_behind(published: Path) -> None:
    assert [path.name for path in published.parent.iterdir()] == [published.name]
    found = {path.name for path in published.iterdir()}
    assert found == {WEIGHTS, FACTS, "README.md", "DATA.md", "int8.json", "reference.json", "index"}


def test_refused_release_changes_nothing(
    published: Path, finished_run: TrainConfig, sample: Path, tmp_path: Path
) -> None:
    better = Path(shutil.copytree(published, tmp_path / "better"))
    facts = json.loads((better / FACTS).read_text())
    facts["metrics"]["all"]["nll"] -= 0.5
    (better / FACTS).write_text(json.dumps(facts))
    before = {path: path.read_bytes() for path in better.rglob("*") if path.is_file()}
    with pytest.raises(Regression):
        publish(finished_run.run, better, sample=sample)
    assert {path: path.read_bytes() for path in better.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [better]


def test_next_release_takes_the_place_of_the_one_before(
    published: Path, finished_run: TrainConfig, sample: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(published, tmp_path / "release"))
    assert publish(finished_run.run.with_name("final"), out, sample=sample).version == 2
    assert [path.name for path in (out / "index").iterdir() if not path.name.startswith(".")] == ["2"]
    assert Reference.load(out / "reference.json").model_version == 2
