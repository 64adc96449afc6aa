"""The two notebooks run from the first cell to the last, on drawn pictures, and what is committed shows it.

UPDATE_NOTEBOOKS=1 writes the outputs of this run into the repository; VGG16_WEIGHTS=imagenet (or a path) makes them
worth looking at. Without it the network is random: nothing is downloaded.
"""

import base64
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.training.toy import LABELS, write_toml, write_toy
from training.augment import Augmentation
from training.config import TrainConfig

pytestmark = [pytest.mark.training, pytest.mark.timeout(900)]
FOLDER = Path(__file__).parents[2] / "training/notebooks"
NAMES = ("train_model", "performance_model_vgg16")


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Both notebooks, run one after the other in kernels of their own."""
    folder = tmp_path_factory.mktemp("notebooks")
    config = TrainConfig(
        data=write_toy(folder / "data"), prepared=folder / "prepared", run=folder / "run", labels=LABELS,
        base_weights=os.environ.get("VGG16_WEIGHTS", "random"), random_share=0.15, artist_share=0.2, source_share=0.2,
        blocks=(4, 5), ranks=(0, 4), embedding_size=3,
        views=2, augmentation=Augmentation(side=64), consistency=0.3,
        batch=8, epochs=3, patience=3,
    )  # fmt: skip
    os.environ["TRAINING_CONFIG"] = str(write_toml(folder / "run.toml", config))  # what a kernel inherits
    notebooks = {}
    for name in NAMES:
        notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
        client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": FOLDER}})
        notebooks[name] = client.execute()
        if os.environ.get("UPDATE_NOTEBOOKS"):
            nbformat.write(as_committed(notebook), FOLDER / f"{name}.ipynb")
    yield notebooks
    del os.environ["TRAINING_CONFIG"]


def as_committed(notebook: Any) -> Any:
    """Without progress bars and log lines, which are of one machine and one minute; plots small enough for git."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not is_noise(output)]
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    output.data["image/png"] = smaller(output.data["image/png"])
    notebook.metadata.pop("language_info", None)
    return notebook


def is_noise(output: Any) -> bool:
    if output.output_type != "stream":
        return False
    return output.name == "stderr" or bool(re.search(r"WARNING|Epoch|/step", output.text))


def smaller(png: str) -> str:
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.thumbnail((800, 800))
    picture.quantize(64, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def outputs(notebook: Any, kind: str) -> list[str]:
    return [
        "".join(output.data[kind])
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if kind in output.get("data", {})
    ]


def test_training_notebook_trains_and_shows_its_plots(executed: dict[str, Any]) -> None:
    notebook = executed["train_model"]
    assert len(outputs(notebook, "image/png")) == 2  # what the network sees, the epochs
    assert "| seed 0 " in "".join(outputs(notebook, "text/markdown"))
    assert "'temperature'" in outputs(notebook, "text/plain")[-1]


def test_performance_notebook_measures_the_model_that_was_trained(executed: dict[str, Any]) -> None:
    notebook = executed["performance_model_vgg16"]
    assert len(outputs(notebook, "image/png")) == 5  # confusion, reliability, coverage, mistakes, evidence
    tables = "".join(outputs(notebook, "text/markdown"))
    assert all(f"| {part} |" in tables for part in ("random", "artist-disjoint", "all"))
    assert "original recipe" in tables


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebook_has_the_outputs_of_a_whole_run(name: str) -> None:
    cells = [c for c in nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells if c.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)


def test_performance_notebook_says_which_score_is_served() -> None:
    cells = nbformat.read(FOLDER / "performance_model_vgg16.ipynb", as_version=4).cells
    (text,) = [cell.source for cell in cells if cell.cell_type == "markdown" and "`energy`" in cell.source]
    assert re.search(r"`distance`[^;]*\bood_score\b[^;]*service\s+answers with; `energy`[^;]*not served", text)


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebook_names_no_folder_of_anybodys_machine(name: str) -> None:
    text = (FOLDER / f"{name}.ipynb").read_text()
    assert not re.search(r"(?<![\w.])/(home|root|tmp|Users|work|var|opt)/", text)
