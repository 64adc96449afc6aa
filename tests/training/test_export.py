"""The SavedModel of a release: the contract, the same answers, whole or not at all."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from serving import contract
from training.calibrate import probabilities
from training.checkpoint import load_release, probe_images
from training.config import TrainConfig
from training.evaluate import ask_saved_model
from training.export import TOLERANCE, ExportError, export_release, signature_problems, write_servable
from training.model import build_tiny_model
from training.prepare import load_prepared
from training.release import release
from training.runs import CHECKPOINT, load_answers

pytestmark = [pytest.mark.training, pytest.mark.filterwarnings("default")]  # TensorFlow and Keras warn about themselves


@pytest.fixture(scope="module")
def measured(finished_run: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release of the measured run itself."""
    out = tmp_path_factory.mktemp("measured")
    release(finished_run.run, out)
    return out


@pytest.fixture(scope="module")
def exported(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It as a SavedModel."""
    return export_release(measured, tmp_path_factory.mktemp("models"))


def test_exported_signatures_are_the_contract(exported: Path) -> None:
    assert signature_problems(tf.saved_model.load(str(exported))) == []


def test_exported_model_answers_as_the_run_did(exported: Path, finished_run: TrainConfig) -> None:
    _, pixels, _ = load_prepared(finished_run.prepared)
    answers = load_answers(finished_run.run)
    found = ask_saved_model(exported, pixels, answers.rows, finished_run.labels)
    calibration = load_release(finished_run.run / CHECKPOINT).calibration
    expected = probabilities(calibration, answers.logits)
    np.testing.assert_allclose(found, expected, atol=0.01)  # the run read maps that were cached in float16
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-5)
    assert np.ptp(expected, axis=0).max() > 0.1  # so that not any answers would do


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_export_computes_in_the_precision_that_was_asked_for(
    measured: Path, exported: Path, precision: str, tmp_path: Path
) -> None:
    directory = exported if precision == "float32" else export_release(measured, tmp_path, precision=precision)
    found, wanted = (tf.saved_model.load(str(each)).signatures[contract.SERVING] for each in (directory, exported))
    graph = found.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    dtypes = [tf.dtypes.as_dtype(node.attr["T"].type).name for node in nodes if node.op == "Conv2D"]
    assert set(dtypes) == {precision}
    answers = [ask(images=tf.constant(probe_images())) for ask in (found, wanted)]
    told, expected = (answer[contract.PROBABILITIES] for answer in answers)
    assert told.dtype == tf.float32
    np.testing.assert_allclose(told, expected, atol=TOLERANCE[precision])


def test_exported_heat_maps_sum_to_the_logits(exported: Path) -> None:
    explain = tf.saved_model.load(str(exported)).signatures[contract.EXPLAIN]
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    answer = {name: value.numpy() for name, value in explain(images=tf.constant(images)).items()}
    logits = answer[contract.HEATMAPS].sum((1, 2))
    ratios = np.log(answer[contract.PROBABILITIES])
    differences = (logits - logits[:, :1]) - (ratios - ratios[:, :1]) * (logits[:, 1:2] - logits[:, :1]) / (
        ratios[:, 1:2] - ratios[:, :1]
    )
    np.testing.assert_allclose(differences, 0, atol=1e-2)  # probabilities are the softmax of logits / temperature


def test_weights_as_constants_answer_the_same_and_are_stored_once(tmp_path: Path) -> None:
    folders, images = [tmp_path / "variables", tmp_path / "constants"], tf.constant(probe_images())
    for folder, constants in zip(folders, (False, True), strict=True):
        write_servable(build_tiny_model(2), ("A", "B"), folder / "1", constants=constants)
    models = [tf.saved_model.load(str(folder / "1")) for folder in folders]
    for name in contract.SIGNATURES:
        wanted, found = (model.signatures[name](images=images) for model in models)
        for output, value in wanted.items():
            np.testing.assert_array_equal(found[output], value)
    kept = [[name for name, _ in tf.train.list_variables(str(folder / "1/variables/variables"))] for folder in folders]
    assert [any(not name.startswith("_") for name in names) for names in kept] == [True, False]
    sizes = [sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) for folder in folders]
    assert sizes[1] < 1.05 * sizes[0]


def test_export_never_overwrites_a_version(tmp_path: Path) -> None:
    target = tmp_path / "culture" / "3"
    target.mkdir(parents=True)
    with pytest.raises(ExportError, match="never overwritten"):
        write_servable(build_tiny_model(2), ("A", "B"), target)


def test_export_killed_in_the_middle_leaves_no_version(tmp_path: Path) -> None:
    code = (
        "import os, sys, tensorflow as tf\n"
        "from pathlib import Path\n"
        "from training import export\n"
        "from training.model import build_model, build_tiny_model\n"
        "save = tf.saved_model.save\n"
        "export.tf.saved_model.save = lambda *a, **k: (save(*a, **k), os._exit(9))\n"  # as a kill: no clean-up runs
        "export.write_servable(build_tiny_model(2), ('A', 'B'), Path(sys.argv[1], 'culture', '1'))\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, check=False)
    assert killed.returncode == 9, killed.stderr[-500:]
    assert list((tmp_path / "culture").iterdir()) == []


def test_export_that_answers_differently_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="differ from the checkpoint"):
        write_servable(
            build_tiny_model(2), ("A", "B"), tmp_path / "culture" / "1", reference=build_tiny_model(2, seed=5)
        )
    assert list((tmp_path / "culture").iterdir()) == []
