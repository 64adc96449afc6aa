"""The exported model on one GPU: pictures per second by precision and batch size, with and without TF32 and XLA.

    python -m tests.bench.gpu models/culture/1 models-bf16/culture/1 ...

Each directory is what `python -m training export --precision float32|bfloat16|float16` wrote. Needs a TensorFlow that
sees a GPU; TensorFlow Serving's GPU image computes the same graphs, so its flags can be chosen from this table.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from serving import contract

BATCHES = (1, 8, 16, 32, 64, 128)


def main() -> None:
    """One line of JSON per model, batch size and setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", type=Path, nargs="+")
    parser.add_argument("--runs", type=int, default=30, help="timed runs of each batch (default %(default)s)")
    options = parser.parse_args()
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        parser.exit(1, "TensorFlow sees no GPU here: nothing was measured\n")
    name = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    for has_tf32 in (
        True,
        False,
    ):  # TF32 shortens float32 products to 19 bits; it changes nothing for the 16-bit models
        tf.config.experimental.enable_tensor_float_32_execution(has_tf32)
        for version in options.versions:
            for has_xla in (False, True):
                function = _function(tf, version, has_xla)
                for rows in BATCHES:
                    facts = {"gpu": name, "model": str(version), "tf32": has_tf32, "xla": has_xla, "batch": rows}
                    print(json.dumps(facts | _measure(function, rows, options.runs)), flush=True)


def _function(tf: Any, version: Path, has_xla: bool) -> Any:
    """The probabilities alone: XLA compiles no strings."""
    signature = tf.saved_model.load(str(version)).signatures[contract.SERVING]
    numbers = signature.prune(signature.inputs[0], signature.structured_outputs[contract.PROBABILITIES])
    return tf.function(numbers, jit_compile=has_xla)


def _measure(function: Any, rows: int, runs: int) -> dict[str, float]:
    """From pictures in the host's memory to probabilities there, as a server does it."""
    size = contract.IMAGE_SIZE
    pictures = np.random.default_rng(0).integers(0, 256, (rows, size, size, 3)).astype(np.uint8)
    durations = []
    for number in range(runs + 3):  # the first ones choose kernels and compile
        begin = time.monotonic()
        np.asarray(function(pictures))
        if number >= 3:
            durations.append(time.monotonic() - begin)
    middle = median(durations)
    return {"ms": round(1000 * middle, 2), "rps": round(rows / middle, 1), "worst_ms": round(1000 * max(durations), 2)}


if __name__ == "__main__":
    main()
