"""Eight bits: the choice of ranges, and a graph of three convolutions that must answer nearly as before."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

ov = pytest.importorskip("openvino", reason="the extra int8 is not installed")

from openvino import opset13 as op  # noqa: E402

from training.checkpoint import WEIGHTS  # noqa: E402
from training.quantize import Histogram, activation_ranges, load_ranges, quantize, save_ranges  # noqa: E402


def three_convolutions() -> Any:
    """Pictures uint8 [N, 8, 8, 3] minus means -> float32 [N, 16]: three convolutions, biases and ReLUs, one pooling."""
    random = np.random.default_rng(0)
    pictures = op.parameter(ov.PartialShape([-1, 8, 8, 3]), np.uint8, name="images")
    hidden = op.transpose(op.convert(pictures, "f32"), op.constant(np.array([0, 3, 1, 2])))
    hidden = op.subtract(hidden, op.constant(np.float32([103.9, 116.8, 123.5]).reshape(1, 3, 1, 1)))
    for number, size in enumerate((3, 16, 16)):
        kernel = op.constant(random.normal(size=(16, size, 3, 3), scale=(9 * size) ** -0.5).astype(np.float32))
        bias = op.constant(random.normal(size=(1, 16, 1, 1), scale=20).astype(np.float32))
        hidden = op.relu(op.add(op.convolution(hidden, kernel, [1, 1], [1, 1], [1, 1], [1, 1]), bias))
        if number == 0:
            hidden = op.max_pool(hidden, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    return ov.Model([op.result(op.reduce_mean(hidden, np.array([2, 3])))], [pictures])


def _first(graph: Any) -> Any:
    return next(node for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution")


def pictures(count: int) -> Any:
    return np.random.default_rng(1).integers(0, 256, (count, 8, 8, 3)).astype(np.uint8)


def answers(graph: Any) -> Any:
    return ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(pictures(4))[0].copy()


def test_a_histogram_keeps_every_value_when_its_range_grows() -> None:
    histogram = Histogram()
    for scale in (0.1, 3.0, 1000.0):
        histogram.add(np.linspace(0, scale, 50))
    assert histogram.counts.sum() == 150


def test_evenly_spread_values_keep_their_whole_range() -> None:
    histogram = Histogram()
    histogram.add(np.linspace(0, 100, 100_000))
    assert histogram.best_range() == pytest.approx(100, rel=0.02)


def test_a_long_tail_is_cut() -> None:
    histogram = Histogram()
    histogram.add(np.random.default_rng(0).exponential(1.0, 1_000_000))
    assert 5 < histogram.best_range() < 12  # the largest of a million is about 14


def test_each_activation_between_convolutions_has_a_range() -> None:
    ranges = activation_ranges(three_convolutions(), [pictures(8)])
    assert list(ranges) == ["relu1", "relu2"]


def test_eight_bits_answer_nearly_as_float32() -> None:
    graph = three_convolutions()
    exact, ranges = answers(graph), activation_ranges(three_convolutions(), [pictures(32)])
    quantize(graph, ranges)
    assert np.abs(answers(graph) - exact).max() < 0.02 * exact.max()


def test_pixels_in_bytes_are_read_as_exactly_as_the_kernels_in_bytes_allow() -> None:
    """Away from the border: with kernels that bytes hold exactly, what the first convolution says is what it said."""
    graph = three_convolutions()
    first = _first(graph)
    whole = np.random.default_rng(2).integers(-63, 64, (16, 3, 3, 3)).astype(np.float32)
    whole[:, 0, 0, 0] = 63
    first.input(1).replace_source_output(op.constant(whole / 63).output(0))
    (bias,) = (reader.get_node() for reader in first.output(0).get_target_inputs())
    exact = answers(ov.Model([op.result(bias)], graph.get_parameters()))
    quantize(graph, {"relu1": 100.0, "relu2": 100.0})
    (bias,) = (reader.get_node() for reader in _first(graph).output(0).get_target_inputs())
    found = answers(ov.Model([op.result(bias)], graph.get_parameters()))
    np.testing.assert_allclose(found[..., 1:-1, 1:-1], exact[..., 1:-1, 1:-1], atol=0.01)
    assert 0 < np.abs(found - exact).max() < 27 * 0.5  # the border: 27 numbers of at most 1, half a value


def test_all_kernels_are_stored_as_bytes(tmp_path: Path) -> None:
    graph = three_convolutions()
    quantize(graph, {"relu1": 100.0, "relu2": 100.0})
    ov.save_model(graph, tmp_path / "model.xml", compress_to_fp16=False)
    assert (tmp_path / "model.bin").stat().st_size < 16 * 3 * 9 + 2 * 16 * 16 * 9 + 1000


def test_ranges_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="relu3"):
        quantize(three_convolutions(), {"relu1": 1.0, "relu2": 1.0, "relu3": 1.0})


def test_ranges_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes(b"one")
    save_ranges({"relu1": 1.0}, 8, tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"another")
    with pytest.raises(ValueError, match="another checkpoint"):
        load_ranges(tmp_path)


def test_missing_ranges_say_how_to_measure_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="python -m training ranges"):
        load_ranges(tmp_path)
