"""The servable in eight bits, as OpenVINO's intermediate representation (IR): several times as fast on CPUs with VNNI.

One graph with the names, dtypes and shapes of the contract's `explain`, labels and thresholds inside, so that the
embedded server and OpenVINO Model Server answer as TensorFlow Serving does. Needs the extra `int8`.
"""

import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import openvino as ov
import tensorflow as tf
from openvino import opset13 as op

from serving import contract
from training.checkpoint import WEIGHTS, build_release_model, digest, load_release, probe_images
from training.export import WARMUP, Servable, _flush, _write_warmup
from training.quantize import activation_ranges, load_ranges, quantize, save_ranges
from training.records import TRAIN

FOLDER: Final = f"{contract.MODEL_NAME}-int8"  # beside the SavedModels: a server reads one folder or the other
IR: Final = "model.xml"  # with model.bin: the names that OpenVINO Model Server expects in a version directory
# Greatest difference of a probability from the checkpoint's, on generated pictures: float32 checks the graph, int8 that
# nothing broke. How good int8 is, only real pictures tell: `python -m training evaluate`.
TOLERANCE: Final = {"float32": 1e-3, "int8": 0.2}


class Int8Error(RuntimeError):
    """No IR was written, and why."""


def export_int8(release_dir: Path, models: Path, *, version: int | None = None) -> Path:
    """Write `models/culture-int8/<version>` from a release and its ranges, and return it.

    Raises:
        Int8Error: The version exists, or what was written does not answer as the checkpoint does.
        ValueError: The ranges are missing or belong to another checkpoint.
    """
    ranges = load_ranges(release_dir)
    target = models / FOLDER / str(version or load_release(release_dir).version)
    if target.exists():
        raise Int8Error(f"{target} exists; a version is never overwritten: choose another with --version")
    target.parent.mkdir(parents=True, exist_ok=True)
    servable = release_servable(release_dir)
    graph = float_graph(servable)
    _check_answers(graph, servable, "float32")
    quantize(graph, ranges)
    with tempfile.TemporaryDirectory(prefix=f".{FOLDER}-", dir=models) as scratch:
        written = Path(scratch, target.name)
        ov.save_model(graph, written / IR, compress_to_fp16=False)
        _write_warmup(written / WARMUP)
        _check_answers(ov.Core().read_model(written / IR), servable, "int8")
        _flush(written)
        written.rename(target)
    return target


def write_ranges(release_dir: Path, prepared: Path, *, pictures: int, batch: int = 8) -> Path:
    """Measure a release's ranges on that many training pictures, drawn by a fixed seed, and return the file.

    Raises:
        ValueError: There are fewer training pictures, or `prepare` has not run to its end.
    """
    from training.prepare import load_prepared  # needs the training environment, as an export does not

    records, pixels, _ = load_prepared(prepared)
    training = [row for row, record in enumerate(records) if record.part == TRAIN]
    if len(training) < pictures:
        raise ValueError(f"{prepared} has {len(training)} training pictures, expected at least {pictures}")
    rows = np.sort(np.random.default_rng(0).choice(training, pictures, replace=False))
    batches = (np.ascontiguousarray(pixels[rows[start : start + batch]]) for start in range(0, pictures, batch))
    return save_ranges(activation_ranges(float_graph(release_servable(release_dir)), batches), pictures, release_dir)


def release_servable(release_dir: Path) -> Servable:
    """The released checkpoint as TensorFlow computes it, in float32."""
    release = load_release(release_dir)
    model, weights = build_release_model(release), digest(release_dir / WEIGHTS)
    return Servable(model, release.labels, release.calibration, release=weights)


def float_graph(servable: Servable) -> ov.Model:
    """The servable's `explain` as an OpenVINO graph, still in float32."""

    @tf.function(input_signature=servable.explain.input_signature)  # type: ignore[untyped-decorator]  # TensorFlow's
    def numbers(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {name: value for name, value in servable.explain(images).items() if value.dtype != tf.string}

    with tempfile.TemporaryDirectory() as scratch:
        tf.saved_model.save(servable, scratch, signatures=numbers)
        converted = ov.Core().read_model(scratch)
    _turn_by_gathering(converted)
    _square_by_power(converted)
    outputs = {name: converted.output(name).get_node().input_value(0) for name in _NUMBERS}
    outputs |= _strings(servable, outputs)
    for name, output in outputs.items():
        output.set_names({name})
    results = [op.result(outputs[spec.name], name=spec.name) for spec in contract.EXPLAIN_OUTPUTS]
    graph = ov.Model(results, converted.get_parameters(), contract.MODEL_NAME)
    # The IR has no signatures: the embedded server reads these notes. OpenVINO Model Server always answers with all.
    for name, specs in contract.SIGNATURES.items():
        graph.set_rt_info(",".join(spec.name for spec in specs), ["signatures", name])
    return graph


_NUMBERS: Final = [spec.name for spec in contract.EXPLAIN_OUTPUTS if spec.dtype != "string"]


def _strings(servable: Servable, numbers: dict[str, ov.Output]) -> dict[str, ov.Output]:
    """The outputs that are words, gathered from tables: the one thing that OpenVINO's CPU plugin does with strings."""
    last, strangeness = np.array([1]), numbers[contract.OOD_SCORE]
    least, greatest = (
        np.float32(x) for x in (servable.calibration.least_probability, servable.calibration.greatest_ood)
    )
    sure = op.greater_equal(op.reduce_max(numbers[contract.PROBABILITIES], last), op.constant(least))
    strange = op.greater(strangeness, op.constant(greatest))
    # Positions in contract.DECISIONS: accepted, abstained, out of distribution.
    decision = op.select(strange, _integer(2), op.select(sure, _integer(0), _integer(1)))  # [N]
    first = op.broadcast(_integer(0), op.shape_of(strangeness))  # [N] times row 0
    tables = {
        contract.LABELS: (servable.labels.numpy().astype(str)[None], first),
        contract.DECISION: (contract.DECISIONS, decision),
        contract.PROVENANCE: ([servable.provenance.numpy().decode()], first),
    }
    return {
        name: op.gather(ov.op.Constant(ov.Tensor(np.array(words))), rows, _integer(0)).output(0)
        for name, (words, rows) in tables.items()
    }


def _turn_by_gathering(graph: ov.Model) -> None:
    """RGB becomes BGR by a ReverseSequence, which OpenVINO computes on one thread: 5 % of an int8 picture's time."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "ReverseSequence":
            axis = node.get_attributes()["seq_axis"]
            order = np.arange(node.get_output_partial_shape(0)[axis].get_length())[::-1].astype(np.int32)
            turned = op.gather(node.input_value(0), op.constant(order.copy()), _integer(axis))
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(turned.output(0))


def _square_by_power(graph: ov.Model) -> None:
    """A product of a thing with itself becomes its power, of which OpenVINO's low-precision pass knows nothing.

    Of the product it takes the scale of the eight bits out, and then multiplies by it in two more passes over the whole
    map, in float32: a third of an int8 picture's time where convolutions are as quick as with AMX.
    """
    for node in graph.get_ordered_ops():
        if node.get_type_name() == "Multiply" and node.input_value(0) == node.input_value(1):
            two = op.constant(np.array(2, node.get_output_element_type(0).to_dtype()))
            squared = op.power(node.input_value(0), two)
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(squared.output(0))


def _integer(value: int) -> ov.Node:
    return op.constant(np.array(value, np.int32))


def _check_answers(graph: ov.Model, servable: Servable, precision: str) -> None:
    """The words must be the servable's own; the numbers nearly so."""
    images = probe_images()
    wanted = servable.explain(tf.constant(images))
    found = ov.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)
    for name in (contract.LABELS, contract.PROVENANCE):
        if found[name].tolist() != wanted[name].numpy().astype(str).tolist():
            raise Int8Error(f"{precision}: {name} changed on the way")
    error = float(np.abs(found[contract.PROBABILITIES] - wanted[contract.PROBABILITIES].numpy()).max())
    if not error <= TOLERANCE[precision]:  # written so that NaN fails too
        raise Int8Error(f"{precision}: probabilities differ from the checkpoint's by {error:.4f}")
