"""The released model in eight bits, on real pictures: made as users make it, loaded as the server loads it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("openvino", reason="the extra int8 is not installed")

from serving import contract, images
from training.__main__ import RELEASE_DIR, main
from training.checkpoint import load_release
from training.quantize import RANGES

PICTURES = sorted((Path(__file__).parents[1] / "images").glob("*.jpg"))

pytestmark = [
    pytest.mark.training,
    pytest.mark.skipif(not (RELEASE_DIR / RANGES).exists(), reason=f"the release has no {RANGES}"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    assert main(["export", "--models", str(models), "--precision", "int8"]) == 0
    return models


@pytest.fixture(scope="module")
def servable(models: Path) -> Iterator[Any]:
    from serving.server.openvino_engine import OpenVinoEngine

    (version,) = (models / "culture-int8").iterdir()
    loaded = OpenVinoEngine(threads=2, runs=1).load(version)
    yield loaded
    loaded.close()


@pytest.fixture(scope="module")
def pictures() -> Any:
    return np.stack([images.decode(path.read_bytes()) for path in PICTURES])


@pytest.fixture(scope="module")
def explained(servable: Any, pictures: np.ndarray) -> dict[str, Any]:
    return servable.run(contract.EXPLAIN, {contract.INPUT: pictures})


@pytest.fixture(scope="module")
def exact(pictures: np.ndarray) -> dict[str, Any]:
    """The checkpoint in float32, by Keras and TensorFlow."""
    from training.int8 import release_servable

    released = release_servable(RELEASE_DIR)
    return {name: value.numpy() for name, value in released.explain(pictures).items()}


@pytest.mark.parametrize("signature", contract.SIGNATURES)
def test_the_signatures_are_the_contract(servable: Any, signature: str) -> None:
    from tensorflow.dtypes import as_dtype

    wanted = {spec.name: (spec.dtype, len(spec.shape)) for spec in contract.SIGNATURES[signature]}
    outputs = servable.signatures[signature].outputs
    assert {name: (as_dtype(spec.dtype).name, len(spec.shape)) for name, spec in outputs.items()} == wanted


def test_probabilities_are_near_those_of_float32(explained: dict[str, Any], exact: dict[str, Any]) -> None:
    assert np.abs(explained[contract.PROBABILITIES] - exact[contract.PROBABILITIES]).max() < 0.1


def test_the_answer_is_the_same_where_it_is_clear(explained: dict[str, Any], exact: dict[str, Any]) -> None:
    best, found = np.sort(exact[contract.PROBABILITIES]), explained[contract.PROBABILITIES].argmax(1)
    clear = best[:, -1] - best[:, -2] > 0.2
    assert (found == exact[contract.PROBABILITIES].argmax(1))[clear].all()


def test_labels_and_provenance_are_those_of_float32(explained: dict[str, Any], exact: dict[str, Any]) -> None:
    words = (contract.LABELS, contract.PROVENANCE)
    assert [explained[name].tolist() for name in words] == [exact[name].tolist() for name in words]


def test_decisions_follow_from_the_numbers_beside_them(explained: dict[str, Any]) -> None:
    least, greatest = explained[contract.THRESHOLDS].T
    sure = explained[contract.PROBABILITIES].max(1) >= least
    known = np.where(sure, contract.ACCEPTED.encode(), contract.ABSTAINED.encode())
    strange = explained[contract.OOD_SCORE] > greatest
    assert explained[contract.DECISION].tolist() == np.where(strange, b"out_of_distribution", known).tolist()


def test_embeddings_point_where_those_of_float32_point(explained: dict[str, Any], exact: dict[str, Any]) -> None:
    cosines = (explained[contract.EMBEDDING] * exact[contract.EMBEDDING]).sum(1)
    assert cosines.min() > 0.95


def test_heat_maps_still_add_up_to_the_logits(explained: dict[str, Any]) -> None:
    calibration = load_release(RELEASE_DIR).calibration
    expected = calibration.probabilities(explained[contract.HEATMAPS].sum((1, 2)))
    np.testing.assert_allclose(explained[contract.PROBABILITIES], expected, rtol=0.02)


def test_compiled_graph_goes_over_a_large_map_once_in_float32(models: Path) -> None:
    """To centre and square it. Each pass more over block 2's map takes as long as a convolution does with AMX."""
    import openvino as ov

    from serving.server.openvino_engine import OpenVinoEngine

    (version,) = (models / "culture-int8").iterdir()
    graph = OpenVinoEngine(threads=1, runs=1, only=contract.SERVING).compiled(version)[contract.SERVING]
    nodes = [node for node in graph.get_runtime_model().get_ordered_ops() if node.get_output_size()]
    large = [node for node in nodes if node.get_output_partial_shape(0) == ov.PartialShape([-1, 128, 112, 112])]
    kinds = [node.get_rt_info()["layerType"].astype(str) for node in large]
    assert kinds.count("Convolution") == 2
    assert kinds.count("Eltwise") == 1


def test_an_existing_version_is_not_overwritten(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--models", str(models), "--precision", "int8"]) == 1
    assert "exists; a version is never overwritten" in capsys.readouterr().err
