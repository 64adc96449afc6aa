"""The int8 engine, on a graph that is made in a second: what it answers is what the graph says."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from serving.server import cpu, flags
from serving.server.config import ConfigError
from serving.server.errors import InvalidArgument

ov = pytest.importorskip("openvino", reason="the extra int8 is not installed")

from openvino import opset13 as op  # noqa: E402

if TYPE_CHECKING:
    from tests.serving.running import Client

SIGNATURES = {"serving_default": "mean,word", "explain": "mean,word,largest"}


def save(directory: Path, signatures: dict[str, str]) -> Path:
    """A version directory: mean and largest value of each picture uint8 [N, 2, 2, 3], and a word for each."""
    pictures = op.parameter(ov.PartialShape([-1, 2, 2, 3]), np.uint8, name="images")
    pictures.output(0).set_names({"images"})
    numbers, inside = op.convert(pictures, "f32"), np.array([1, 2, 3])
    mean = op.reduce_mean(numbers, inside)
    is_light = op.convert(op.greater(mean, op.constant(np.float32(100))), "i32")
    words = ov.op.Constant(ov.Tensor(np.array(["dark", "light"])))
    outputs = {
        "mean": mean,
        "word": op.gather(words, is_light, op.constant(np.int32(0))),
        "largest": op.reduce_max(numbers, inside),
    }
    for name, node in outputs.items():
        node.output(0).set_names({name})
    graph = ov.Model([op.result(node, name=name) for name, node in outputs.items()], [pictures], "tiny")
    for name, names in signatures.items():
        graph.set_rt_info(names, ["signatures", name])
    directory.mkdir(parents=True)
    ov.save_model(graph, directory / "model.xml")
    return directory


def save_picky(directory: Path) -> Path:
    """A version directory: numbers float32 [2 N] in N pairs; OpenVINO fails unless the first of them is N."""
    numbers = op.parameter(ov.PartialShape([-1]), np.float32, name="numbers")
    numbers.output(0).set_names({"numbers"})
    first = op.gather(numbers, op.constant(np.array([0])), op.constant(np.int64(0)))
    shape = op.concat([op.convert(first, "i64"), op.constant(np.array([2]))], 0)
    pairs = op.reshape(numbers, shape, special_zero=False)
    pairs.output(0).set_names({"pairs"})
    directory.mkdir(parents=True)
    ov.save_model(ov.Model([op.result(pairs, name="pairs")], [numbers], "picky"), directory / "model.xml")
    return directory


def save_pooled(directory: Path) -> Path:
    """A version directory: the largest value of each picture uint8 [N, 2, 2, 3]; OpenVINO pools no batch of none."""
    pictures = op.parameter(ov.PartialShape([-1, 2, 2, 3]), np.uint8, name="images")
    pictures.output(0).set_names({"images"})
    planes = op.transpose(op.convert(pictures, "f32"), op.constant(np.array([0, 3, 1, 2])))
    pooled = op.max_pool(planes, [1, 1], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    largest = op.reduce_max(pooled, np.array([1, 2, 3]))
    largest.output(0).set_names({"largest"})
    directory.mkdir(parents=True)
    ov.save_model(ov.Model([op.result(largest, name="largest")], [pictures], "pooled"), directory / "model.xml")
    return directory


def pictures(*greys: int) -> dict[str, Any]:
    return {"images": np.stack([np.full((2, 2, 3), grey, np.uint8) for grey in greys])}


def load(directory: Path, *, runs: int = 1) -> Any:
    from serving.server.openvino_engine import OpenVinoEngine

    return OpenVinoEngine(threads=1, runs=runs).load(directory)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("ir") / "tiny/1", SIGNATURES)


@pytest.fixture(scope="module")
def server(directory: Path) -> "Iterator[Client]":
    from serving.server.openvino_engine import OpenVinoEngine
    from tests.serving.running import running

    monitoring = directory.parents[1] / "monitoring.config"
    monitoring.write_text("prometheus_config { enable: true }")
    argv = ["--model_name=tiny", f"--model_base_path={directory.parent}", f"--monitoring_config_file={monitoring}"]
    with running(argv, engine=OpenVinoEngine(threads=1, runs=1)) as client:
        yield client


def test_each_signature_answers_with_the_outputs_that_the_graph_notes(directory: Path) -> None:
    servable = load(directory)
    found = {name: set(servable.run(name, pictures(7))) for name in servable.signatures}
    assert found == {name: set(outputs.split(",")) for name, outputs in SIGNATURES.items()}


def test_a_graph_without_notes_has_one_signature_with_everything(tmp_path: Path) -> None:
    servable = load(save(tmp_path / "1", {}))
    assert set(servable.run("serving_default", pictures(7))) == {"mean", "word", "largest"}


def test_words_are_bytes_as_tensorflow_has_them(directory: Path) -> None:
    assert load(directory).run("serving_default", pictures(7, 200))["word"].tolist() == [b"dark", b"light"]


def test_an_answer_stays_when_the_next_run_comes(directory: Path) -> None:
    servable = load(directory)
    first = servable.run("serving_default", pictures(7))
    servable.run("serving_default", pictures(200))
    assert first["mean"].tolist() == [7]


def test_threads_get_the_answers_to_their_own_pictures(directory: Path) -> None:
    servable = load(directory, runs=2)
    greys = list(range(200))
    with ThreadPoolExecutor(8) as pool:
        means = list(pool.map(lambda grey: servable.run("serving_default", pictures(grey))["mean"][0], greys))
    assert means == greys


def test_what_a_narrow_engine_leaves_out_is_computed_by_the_wide_one(directory: Path) -> None:
    from serving.server.openvino_engine import OpenVinoEngine
    from serving.server.widths import TwoWidths

    narrow = OpenVinoEngine(threads=1, runs=2, only="serving_default")
    servable = TwoWidths(OpenVinoEngine(threads=2, runs=1), narrow).load(directory)
    found = {name: set(servable.run(name, pictures(7), narrow=True)) for name in servable.signatures}
    assert found == {name: set(outputs.split(",")) for name, outputs in SIGNATURES.items()}


def test_a_shape_that_does_not_fit_is_an_invalid_argument(directory: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"'images' has shape \[1,3,3,3\], expected \[-1,2,2,3\]"):
        load(directory).run("serving_default", {"images": np.zeros((1, 3, 3, 3), np.uint8)})


@pytest.mark.parametrize("threads", [1, 2])
def test_an_empty_batch_is_refused_and_gets_nobody_elses_answer(tmp_path: Path, threads: int) -> None:
    from serving.server.openvino_engine import OpenVinoEngine

    servable = OpenVinoEngine(threads=threads, runs=1).load(save_pooled(tmp_path / "1"))
    assert servable.run("serving_default", pictures(7))["largest"].tolist() == [7]
    with pytest.raises(InvalidArgument, match=r"'images' has shape \[0,2,2,3\], which holds no values"):
        servable.run("serving_default", {"images": np.zeros((0, 2, 2, 3), np.uint8)})
    assert servable.run("serving_default", pictures(200))["largest"].tolist() == [200]


@pytest.mark.skipif(cpu.available_cores() < 2, reason="on one thread OpenVINO 2026.4 does not say that a node failed")
def test_a_failure_of_openvino_is_internal_and_in_the_log_and_the_next_run_is_none_the_worse(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from serving.server.openvino_engine import OpenVinoEngine
    from tests.serving.running import running

    argv = ["--model_name=picky", f"--model_base_path={save_picky(tmp_path / 'picky/1').parent}"]
    with running(argv, engine=OpenVinoEngine(threads=2, runs=1)) as client:
        refused = client.refused({"numbers": np.float32([3, 7])}, name="picky")
        assert client.predict({"numbers": np.float32([1, 7])}, name="picky")["pairs"].tolist() == [[1, 7]]
    assert refused == ("INTERNAL", "the model failed; the server's log says why")
    (record,) = (record for record in caplog.records if record.getMessage() == "the model failed")
    assert record.exc_info[0] is RuntimeError


def test_a_folder_without_a_graph_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no model\.xml"):
        load(tmp_path)


def test_predict_over_grpc(server: "Client") -> None:
    assert server.predict(pictures(7, 200), name="tiny")["word"].tolist() == [b"dark", b"light"]


def test_a_wrong_shape_over_grpc_names_what_is_expected(server: "Client") -> None:
    refused = server.refused({"images": np.zeros((1, 3, 3, 3), np.uint8)}, name="tiny")
    assert refused == ("INVALID_ARGUMENT", "input 'images' has shape [1,3,3,3], expected [-1,2,2,3]")


def test_metadata_over_grpc_names_the_signatures(server: "Client") -> None:
    assert set(server.metadata("signature_def", name="tiny").signature_def) == set(SIGNATURES)


def test_the_engine_shows_in_the_metrics(server: "Client") -> None:
    assert server.metric("whence_server_info", engine="openvino", precision="int8") == 1


def test_bfloat16_with_the_int8_engine_is_refused(directory: Path) -> None:
    argv = [f"--model_base_path={directory.parent}", "--engine=openvino-int8", "--mixed_precision=bfloat16"]
    with pytest.raises(ConfigError, match="--mixed_precision is bfloat16"):
        flags.parse(argv)
