"""The ceiling: the engine alone, in a process set up like the embedded server's, without gRPC, HTTP or JPEG.

`python tests/bench/engine.py ENGINE PRECISION VERSION_DIR` answers each line "rows seconds" on its input with a line
"images per second".
"""

import sys
import time
from pathlib import Path

import numpy as np

from serving import contract
from serving.server import cpu
from serving.server.engine import Engine


def main(engine_name: str, precision: str, version: str) -> None:
    """Load, warm up, say "ready", and measure what the input asks for."""
    servable = _engine(engine_name, precision).load(Path(version))
    size = contract.IMAGE_SIZE
    pictures = np.random.default_rng(0).integers(0, 256, (32, size, size, 3)).astype(np.uint8)
    print("ready", flush=True)
    for line in sys.stdin:
        rows, seconds = int(line.split()[0]), float(line.split()[1])
        inputs = {contract.INPUT: pictures[:rows]}
        servable.run(contract.SERVING, inputs)
        count, begin = 0, time.monotonic()
        while (now := time.monotonic()) < begin + seconds:
            servable.run(contract.SERVING, inputs)
            count += rows
        print(count / (now - begin), flush=True)


def _engine(name: str, precision: str) -> Engine:
    cores = cpu.available_cores()
    if name == "openvino-int8":
        from serving.server.openvino_engine import OpenVinoEngine

        return OpenVinoEngine(threads=cores, runs=1)
    from serving.server.tensorflow_engine import TensorFlowEngine

    return TensorFlowEngine(intra_op=cores, inter_op=2, precision=precision)


if __name__ == "__main__":
    main(*sys.argv[1:])
