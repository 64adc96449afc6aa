"""Eight bits for the convolutions of an OpenVINO graph: which range of values each needs, and the graph that uses it.

The ranges are measured once per checkpoint, on training pictures, and released beside it (`release/int8.json`): a dozen
numbers, so nobody needs the pictures to make the int8 model. OpenVINO's own low-precision pass does the rest when it
compiles the graph. Needs the extra `int8`.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as op

from training.checkpoint import WEIGHTS, digest

RANGES: Final = "int8.json"
LEVELS: Final = 256  # values of an unsigned byte: what a ReLU lets through starts at zero
WHOLE: Final = 127  # the greatest signed byte
# Without VNNI a processor adds two products in 16 bits and cuts what is more. 2 x 255 x 63 is not; activations, unlike
# pixels, are hardly ever so large side by side.
HALF: Final = 63
BINS: Final = 4096


class Histogram:
    """Counts of values >= 0 whose greatest is not known beforehand: when one does not fit, bins merge in pairs."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.top = 1.0

    def add(self, values: NDArray[Any]) -> None:
        """Counts an array of any shape."""
        while values.max() > self.top:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.top *= 2
        self.counts += np.histogram(values, BINS, (0.0, self.top))[0]

    def best_range(self) -> float:
        """The range whose 256 levels have the least mean squared error: a few large values are cut for finer steps."""
        width = self.top / BINS
        centres = (np.arange(BINS) + 0.5) * width
        largest = int(np.flatnonzero(self.counts)[-1]) + 1
        candidates = np.arange(max(1, largest // 8), largest + 1) * width
        return float(min(candidates, key=lambda limit: self._error(centres, float(limit))))

    def _error(self, centres: NDArray[Any], limit: float) -> float:
        step = limit / (LEVELS - 1)
        # Inside the range a value is off by a uniform error of one step; beyond it, by all that was cut.
        errors = np.where(centres < limit, step**2 / 12, (centres - limit) ** 2)
        return float(np.dot(self.counts[1:], errors[1:]))  # the first bin holds the zeros, which are exact


def activation_ranges(graph: ov.Model, batches: Iterable[NDArray[np.uint8]]) -> dict[str, float]:
    """Best range of each activation that a convolution reads, by name; batches are pictures uint8 [N, 224, 224, 3]."""
    activations = _activations(graph)
    taps = ov.Model([op.result(node) for node in activations.values()], graph.get_parameters())
    compiled = ov.Core().compile_model(taps, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    histograms = [Histogram() for _ in activations]
    for batch in batches:
        outputs = compiled(batch)
        for place, histogram in enumerate(histograms):
            histogram.add(outputs[place])
    return {name: histogram.best_range() for name, histogram in zip(activations, histograms, strict=True)}


def quantize(graph: ov.Model, ranges: dict[str, float]) -> None:
    """Change the graph in place. Raises ValueError when the ranges are those of another network."""
    activations = _activations(graph)
    if activations.keys() != ranges.keys():
        raise ValueError(f"ranges and graph differ in {sorted(activations.keys() ^ ranges.keys())}")
    low = _number(0.0)
    for name, node in activations.items():
        readers = node.output(0).get_target_inputs()
        high = _number(ranges[name])
        reduced = op.fake_quantize(node, low, high, low, high, LEVELS)
        for reader in readers:
            reader.replace_source_output(reduced.output(0))
    first, *others = _convolutions(graph)
    _read_pixels_as_bytes(first)
    for convolution, greatest in [(first, HALF), *((other, WHOLE) for other in others)]:
        kernel = convolution.input_value(1).get_node().get_data()  # [out, in, 3, 3]
        convolution.input(1).replace_source_output(_signed_bytes(kernel, greatest).output(0))
    graph.validate_nodes_and_infer_types()


def save_ranges(ranges: dict[str, float], pictures: int, release_dir: Path) -> Path:
    """Beside the checkpoint they belong to, whose digest they name; the file is returned."""
    facts = {"checkpoint_sha256": digest(release_dir / WEIGHTS), "pictures": pictures, "activation_ranges": ranges}
    path = release_dir / RANGES
    path.write_text(json.dumps(facts, indent=1) + "\n")
    return path


def load_ranges(release_dir: Path) -> dict[str, float]:
    """Raises ValueError when there are none, or when they were measured on another checkpoint."""
    path = release_dir / RANGES
    if not path.exists():
        raise ValueError(f"{path} is missing; `python -m training ranges` measures it on training pictures")
    facts = json.loads(path.read_text())
    if facts["checkpoint_sha256"] != digest(release_dir / WEIGHTS):
        raise ValueError(f"{path} belongs to another checkpoint; `python -m training ranges` measures it again")
    return {str(name): float(value) for name, value in facts["activation_ranges"].items()}


def _convolutions(graph: ov.Model) -> list[ov.Node]:
    """VGG16's own convolutions, in order: those over 3x3 positions. The head's maps are products, not convolutions."""
    found = [node for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution"]
    return [node for node in found if tuple(node.input_value(1).get_shape())[2:] == (3, 3)]


def _activations(graph: ov.Model) -> dict[str, ov.Node]:
    """The ReLU behind each convolution that feeds another one, by its place: "relu1" ... "relu12".

    The first convolution reads pixels, which are bytes already.
    """
    found = {}
    for place, convolution in enumerate(_convolutions(graph)[1:], 1):
        node = convolution.input_value(0).get_node()
        while node.get_type_name() in ("MaxPool", "Transpose"):  # neither changes a value
            node = node.input_value(0).get_node()
        if node.get_type_name() != "Relu":
            raise ValueError(f"convolution {place + 1} reads a {node.get_type_name()}, expected a ReLU")
        found[f"relu{place}"] = node
    return found


def _read_pixels_as_bytes(convolution: ov.Node) -> None:
    """Pixels minus their means, as the first convolution reads them: the bytes themselves and a zero point.

    A zero point is a whole number, so what the means have beside goes into the bias. Only at the border of a picture,
    where a kernel reads less than it has room for, is that less than half a grey value too much.
    """
    centred = convolution.input_value(0).get_node()
    (bias,) = (reader.get_node() for reader in convolution.output(0).get_target_inputs())
    if (centred.get_type_name(), bias.get_type_name()) != ("Subtract", "Add"):
        raise ValueError("the first convolution does not read pixels minus means, or has no bias")
    pixels, means = centred.input_value(0), centred.input_value(1).get_node().get_data()  # [1, 3, 1, 1]
    low, high, whole = _number(0.0), _number(LEVELS - 1.0), np.round(means)
    exact = op.fake_quantize(pixels, low, high, low, high, LEVELS)
    convolution.input(0).replace_source_output(op.subtract(exact, _number(whole)).output(0))
    kernel = convolution.input_value(1).get_node().get_data()  # [out, 3, 3, 3]
    rest = (kernel * (means - whole)).sum((1, 2, 3)).reshape(1, -1, 1, 1)
    (own,) = (port for port in bias.inputs() if port.get_source_output().get_node() != convolution)
    own.replace_source_output(_number(own.get_source_output().get_node().get_data() - rest).output(0))


def _signed_bytes(kernel: NDArray[np.float32], greatest: int) -> ov.Node:
    """A kernel [out, in, 3, 3] as signed bytes up to `greatest`, and one scale per output channel."""
    scale = np.maximum(np.abs(kernel).max((1, 2, 3), keepdims=True), 1e-12) / greatest
    return op.multiply(op.convert(op.constant(np.round(kernel / scale).astype(np.int8)), "f32"), _number(scale))


def _number(value: float | NDArray[np.float32]) -> ov.Node:
    return op.constant(np.asarray(value, np.float32))
