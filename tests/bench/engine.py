"""The ceiling: the engine alone, in a process set up like the embedded server's, without gRPC, HTTP or JPEG.

`python tests/bench/engine.py ENGINE PRECISION VERSION_DIR` answers each line "rows runs seconds" of its input with a
line "images per second". One run has all cores, several share them.
"""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from serving import contract
from serving.server import cpu
from serving.server.engine import Engine, Servable
from serving.server.widths import TwoWidths


def main(engine_name: str, precision: str, version: str) -> None:
    """Load, warm up, say "ready", and measure what the input asks for."""
    cores = cpu.available_cores()
    servable = _engine(engine_name, precision, cores).load(Path(version))
    print("ready", flush=True)
    with ThreadPoolExecutor(cores) as pool:
        for line in sys.stdin:
            rows, runs, seconds = (float(word) for word in line.split())
            begin = time.monotonic()
            rates = [pool.submit(_rate, servable, int(rows), runs > 1, begin, seconds) for _ in range(int(runs))]
            print(sum(rate.result() for rate in rates), flush=True)


def _rate(servable: Servable, rows: int, narrow: bool, begin: float, seconds: float) -> float:
    size = contract.IMAGE_SIZE
    inputs = {contract.INPUT: np.random.default_rng(0).integers(0, 256, (rows, size, size, 3)).astype(np.uint8)}
    servable.run(contract.SERVING, inputs, narrow=narrow)
    count, start = 0, time.monotonic()
    while (now := time.monotonic()) < begin + seconds or not count:
        servable.run(contract.SERVING, inputs, narrow=narrow)
        count += rows
    return count / (now - start)


def _engine(name: str, precision: str, cores: int) -> Engine:
    if name == "openvino-int8":
        from serving.server.openvino_engine import OpenVinoEngine

        wide, narrow = (
            OpenVinoEngine(threads=threads, runs=runs, only=contract.SERVING)
            for threads, runs in ((cores, 1), (1, cores))
        )
        return TwoWidths(wide, narrow)
    from serving.server.tensorflow_engine import TensorFlowEngine

    return TensorFlowEngine(intra_op=cores, inter_op=max(2, cores), precision=precision)


if __name__ == "__main__":
    main(*sys.argv[1:])
