"""From the released checkpoint to a version directory that TensorFlow Serving, or our embedded server, can load.

The only part of training that needs TensorFlow itself: a SavedModel is TensorFlow's own format. Each weight is stored
once (`keras.Model.export` stores them twice). A version directory appears by one rename, checked, or not at all.
"""

import json
import math
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import keras
import tensorflow as tf

from serving import contract
from training.checkpoint import (
    WEIGHTS,
    Calibration,
    build_release_model,
    digest,
    load_release,
    probe_images,
)
from training.layers import CAFFE_MEANS, LOGITS

WARMUP: Final = Path("assets.extra", "tf_serving_warmup_requests")  # TensorFlow Serving's own name for it
BATCH_SIZES: Final = (1, 8)  # where batching.config names none: alone, and the fullest batch that pays on a CPU
# Greatest difference of a probability between the SavedModel and the checkpoint, by the precision it computes in.
TOLERANCE: Final = {"float32": 1e-3, "bfloat16": 3e-2, "float16": 1e-2}

NO_CALIBRATION: Final = Calibration()


class ExportError(RuntimeError):
    """No version directory was written, and why."""


class Servable(tf.Module):
    """The network with everything that only the model knows: preprocessing, temperature, labels, thresholds."""

    def __init__(
        self,
        model: keras.Model,
        labels: tuple[str, ...],
        calibration: Calibration,
        *,
        release: str = "",
        constants: bool = False,
    ) -> None:
        """`model` maps images [N, 224, 224, 3] to logits, embedding, ood_score, heatmaps; `release`: its digest.

        `constants`: its weights are constants of the graph, which oneDNN brings into its own layout once, instead of
        variables, with which it does so in each run.
        """
        super().__init__()
        self._answer = model.__call__  # a bound method hides the Keras object, whose own traces need no saving
        if constants:
            weights = [
                [tf.constant(variable.numpy()) for variable in variables]
                for variables in (model.trainable_variables, model.non_trainable_variables)
            ]
            self._answer = lambda images: model.stateless_call(*weights, images)[0]
        else:
            self.model_variables = [variable.value for variable in model.variables]
        self.labels = tf.constant(labels)
        self.calibration = calibration
        self.provenance = tf.constant(json.dumps(provenance(calibration, release)))

    @tf.function(input_signature=[tf.TensorSpec(contract.IMAGES.shape, tf.uint8, name=contract.INPUT)])
    def predict(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Outputs of `serving_default`. What they do not need of the network is not computed."""
        return self._decide(self._answer(images))

    @tf.function(input_signature=[tf.TensorSpec(contract.IMAGES.shape, tf.uint8, name=contract.INPUT)])
    def explain(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Outputs of `explain`."""
        answer = self._answer(images)
        maps = tf.cast(answer[contract.HEATMAPS], tf.float32)
        made_by = tf.repeat(self.provenance, tf.shape(images)[0])  # [N]
        return {**self._decide(answer), contract.HEATMAPS: maps, contract.PROVENANCE: made_by}

    def _decide(self, answer: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        logits = answer[LOGITS]
        strangeness = tf.cast(answer[contract.OOD_SCORE], tf.float32)  # higher is stranger; [N]
        probabilities = tf.cast(self.calibration.probabilities(logits), tf.float32)  # [N, C]
        least, greatest = self.calibration.least_probability, self.calibration.greatest_ood
        sure = tf.reduce_max(probabilities, axis=-1) >= least
        decision = tf.where(
            strangeness > greatest,
            contract.OUT_OF_DISTRIBUTION,
            tf.where(sure, contract.ACCEPTED, contract.ABSTAINED),
        )
        count = tf.shape(logits)[0]
        return {
            contract.PROBABILITIES: probabilities,
            contract.LABELS: tf.tile(self.labels[tf.newaxis], [count, 1]),
            contract.DECISION: decision,
            contract.OOD_SCORE: strangeness,
            contract.THRESHOLDS: tf.tile(tf.constant([[least, greatest]], tf.float32), [count, 1]),
            contract.EMBEDDING: tf.cast(answer[contract.EMBEDDING], tf.float32),
        }


def provenance(calibration: Calibration, release: str) -> dict[str, Any]:
    """What a third party needs to know of the model to give the same answer; `release` is the weights' SHA-256."""
    known = {
        name: value if math.isfinite(value) else None for name, value in asdict(calibration).items()
    }  # JSON has no inf
    return {
        "release_sha256": release,
        "calibration": known,
        "preprocessing": f"RGB to BGR, minus {CAFFE_MEANS}, not scaled",
    }


def export_release(
    release_dir: Path,
    models: Path,
    *,
    version: int | None = None,
    precision: str = "float32",
    constants: bool = False,
) -> Path:
    """Write `models/culture/<version>` from a release and return it. `constants`: see Servable.

    Raises ExportError when that version exists, or when what was written is not what the checkpoint answers.
    """
    release = load_release(release_dir)
    reference = build_release_model(release)
    model = reference if precision == "float32" else build_release_model(release, precision=precision)
    target = models / contract.MODEL_NAME / str(version or release.version)
    write_servable(
        model,
        release.labels,
        target,
        calibration=release.calibration,
        release=digest(release_dir / WEIGHTS),
        reference=reference,
        tolerance=TOLERANCE[precision],
        constants=constants,
    )
    return target


def write_servable(
    model: keras.Model,
    labels: tuple[str, ...],
    target: Path,
    *,
    calibration: Calibration = NO_CALIBRATION,
    release: str = "",
    reference: keras.Model | None = None,
    tolerance: float = 1e-3,
    constants: bool = False,
) -> None:
    """Write any network that answers with logits, embedding, ood_score and heatmaps as the version directory `target`.

    `training.model.build_tiny_model` makes one that is written in a second. `reference` (default: the network itself)
    is asked the same as what was written, and may differ by `tolerance` in a probability. Raises ExportError.
    """
    if target.exists():
        raise ExportError(f"{target} exists; a version is never overwritten: choose another with --version")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the model's own folder: same file system for the rename, and never polled by a server.
    with tempfile.TemporaryDirectory(prefix=f".{contract.MODEL_NAME}-", dir=target.parent.parent) as scratch:
        written = Path(scratch, target.name)
        servable = Servable(model, labels, calibration, release=release, constants=constants)
        signatures = {contract.SERVING: servable.predict, contract.EXPLAIN: servable.explain}
        tf.saved_model.save(servable, str(written), signatures=signatures)
        _write_warmup(written / WARMUP)
        _check_signatures(written)
        _check_answers(written, Servable(reference or model, labels, calibration), tolerance)
        _flush(written)
        try:
            written.rename(target)
        except OSError as error:
            raise ExportError(f"{target} appeared while it was being written; nothing was overwritten") from error
    _sync(target.parent)


def batch_sizes(batching_config: Path = Path("serving/batching.config")) -> tuple[int, ...]:
    """The batch sizes that the model server will form, so the ones to warm up."""
    text = batching_config.read_text() if batching_config.exists() else ""
    return tuple(int(size) for size in re.findall(r"^\s*allowed_batch_sizes\s*:\s*(\d+)", text, re.M)) or BATCH_SIZES


def signature_problems(loaded: Any) -> list[str]:
    """Where a loaded SavedModel's signatures differ from the contract; empty when they agree."""
    problems = [f"no signature {name}" for name in contract.SIGNATURES if name not in loaded.signatures]
    for name, outputs in contract.SIGNATURES.items():
        if name in loaded.signatures:
            signature = loaded.signatures[name]
            problems += _differences(f"{name} input", signature.structured_input_signature[1], [contract.IMAGES])
            problems += _differences(f"{name} output", signature.structured_outputs, outputs)
    return problems


def _differences(where: str, tensors: Mapping[str, Any], specs: Any) -> list[str]:
    wanted = {spec.name: (spec.dtype, spec.shape) for spec in specs}
    found = {name: (tensor.dtype.name, tensor.shape) for name, tensor in tensors.items()}
    problems = [f"{where} {name} is there only once" for name in wanted.keys() ^ found.keys()]
    for name in wanted.keys() & found.keys():
        (dtype, shape), (found_dtype, found_shape) = wanted[name], found[name]
        fits = len(found_shape) == len(shape) and all(w in (None, f) for w, f in zip(shape, found_shape, strict=True))
        if dtype != found_dtype or not fits or found_shape[0] is not None:
            problems.append(f"{where} {name} is {found_dtype} {found_shape}, not {dtype} {shape}")
    return problems


def _check_signatures(directory: Path) -> None:
    if problems := signature_problems(tf.saved_model.load(str(directory))):
        raise ExportError("; ".join(problems))


def _check_answers(directory: Path, reference: Servable, tolerance: float) -> None:
    """Ask the written model and the network the same; both signatures."""
    loaded, images = tf.saved_model.load(str(directory)), tf.constant(probe_images())
    for name, function in ((contract.SERVING, reference.predict), (contract.EXPLAIN, reference.explain)):
        wanted, found = function(images), loaded.signatures[name](images=images)
        if not (found[contract.LABELS].numpy() == wanted[contract.LABELS].numpy()).all():
            raise ExportError(f"{name}: the labels changed on the way")
        error = float(tf.reduce_max(tf.abs(found[contract.PROBABILITIES] - wanted[contract.PROBABILITIES])))
        if not error <= tolerance:  # written so that NaN fails too
            raise ExportError(f"{name}: probabilities differ from the checkpoint's by {error:.4f}, allowed {tolerance}")


def _write_warmup(path: Path) -> None:
    """One request per batch size and signature, so that no real request pays for the first run."""
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2  # slow to import, and only needed here

    path.parent.mkdir()
    with tf.io.TFRecordWriter(str(path)) as records:
        for signature in contract.SIGNATURES:
            for size in batch_sizes():
                request = predict_pb2.PredictRequest()
                request.model_spec.name, request.model_spec.signature_name = contract.MODEL_NAME, signature
                tensor = request.inputs[contract.INPUT]
                tensor.dtype = tf.uint8.as_datatype_enum
                for side in (size, *contract.IMAGES.shape[1:]):
                    tensor.tensor_shape.dim.add(size=side)
                tensor.int_val.append(127)  # one value stands for all of them: a grey picture in a few bytes
                log = prediction_log_pb2.PredictionLog()
                log.predict_log.request.CopyFrom(request)
                records.write(log.SerializeToString())


def _flush(directory: Path) -> None:
    """Bring every file to the disk, readable by a server that runs as another user."""
    for path in [directory, *directory.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
