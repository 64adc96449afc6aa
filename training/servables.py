"""A version directory as a function, whatever made it: a SavedModel by TensorFlow, an int8 model by OpenVINO."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving import contract

Answers = dict[str, NDArray[Any]]
Ask = Callable[[NDArray[np.uint8]], Answers]


def load(directory: Path) -> Ask:
    """`serving_default` of a version directory: pictures uint8 [N, 224, 224, 3] -> its outputs, words as bytes."""
    return _openvino(directory / "model.xml") if (directory / "model.xml").is_file() else _tensorflow(directory)


def _tensorflow(directory: Path) -> Ask:
    import tensorflow as tf

    signature = tf.saved_model.load(str(directory)).signatures[contract.SERVING]

    def ask(pictures: NDArray[np.uint8]) -> Answers:
        return {name: value.numpy() for name, value in signature(images=tf.constant(pictures)).items()}

    return ask


def _openvino(path: Path) -> Ask:
    import openvino as ov

    # As the embedded server runs it, but with all outputs: they are the same numbers.
    compiled = ov.Core().compile_model(ov.Core().read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def ask(pictures: NDArray[np.uint8]) -> Answers:
        found = compiled(pictures)
        values = {spec.name: found[spec.name].copy() for spec in contract.SERVING_OUTPUTS}
        return {name: np.char.encode(value) if value.dtype.kind == "U" else value for name, value in values.items()}

    return ask
