"""`python -m serving.server`: reads the flags, quiets TensorFlow, serves, and ends with the right exit status."""

import asyncio
import gc
import os
import sys

# Before they are imported: TensorFlow writes errors only, and gRPC leaves it to us to say what failed.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from serving.server import flags, logs
from serving.server.config import ConfigError
from serving.server.engine import Engine


def main() -> None:
    """Never returns: TensorFlow's threads may still be running when we are done; they must not hold up the exit."""
    try:
        options = flags.parse(sys.argv[1:])
        logs.set_up()
        status = asyncio.run(_serve(options))
    except ConfigError as error:
        print(f"python -m serving.server: {error}", file=sys.stderr)
        status = 2
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


async def _serve(options: flags.Options) -> int:
    with logs.without_noise():
        from serving.server.server import serve

        engine = _engine(options)
    # As long as the garbage collector counts TensorFlow's 280,000 objects, which stay, it looks for what requests leave
    # behind only when a quarter as much has come: 7,400 pictures or 80 MiB later.
    gc.collect()
    gc.freeze()
    gc.collect()  # counts anew
    return await serve(options, engine)


def _engine(options: flags.Options) -> Engine:
    """What computes; only the chosen one is imported."""
    if options.engine == flags.TENSORFLOW:
        from serving.server.tensorflow_engine import TensorFlowEngine

        # Its runs share one pool of threads, so that side by side they fill each other's gaps: one width is enough.
        return TensorFlowEngine(intra_op=options.intra_op, inter_op=options.inter_op, precision=options.precision)
    try:
        from serving.server.openvino_engine import OpenVinoEngine
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--engine is {options.engine}, expected tensorflow here: no {error.name} is installed"
        ) from None
    wide = OpenVinoEngine(threads=options.intra_op, runs=options.batching.threads)
    if options.batching.narrow_runs == 1:
        return wide
    from serving.server.requests import DEFAULT_SIGNATURE
    from serving.server.widths import TwoWidths

    # It keeps the buffers of each signature and run: beside the wide one, only for the signature that most ask for.
    threads, runs = options.narrow_intra_op, options.batching.narrow_runs
    return TwoWidths(wide, OpenVinoEngine(threads=threads, runs=runs, only=DEFAULT_SIGNATURE))


if __name__ == "__main__":
    main()
