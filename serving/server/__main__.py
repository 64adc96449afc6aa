"""`python -m serving.server`: reads the flags, quiets TensorFlow, serves, and ends with the right exit status."""

import asyncio
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
    return await serve(options, engine)


def _engine(options: flags.Options) -> Engine:
    """What computes; only the chosen one is imported."""
    make = _tensorflow if options.engine == flags.TENSORFLOW else _openvino
    runs, narrow_runs = options.batching.threads, options.batching.narrow_runs
    if narrow_runs == 1:
        return make(options, runs, options.intra_op)
    from serving.server.widths import TwoWidths

    return TwoWidths(
        make(options, runs, options.intra_op), make(options, narrow_runs, options.narrow_intra_op, beside=True)
    )


def _tensorflow(options: flags.Options, runs: int, threads: int, *, beside: bool = False) -> Engine:
    del runs  # as many as there are callers of a session
    from serving.server.tensorflow_engine import OWN_THREADS, TensorFlowEngine

    if beside:
        os.environ[OWN_THREADS] = "true"
    return TensorFlowEngine(intra_op=threads, inter_op=options.inter_op, precision=options.precision)


def _openvino(options: flags.Options, runs: int, threads: int, *, beside: bool = False) -> Engine:
    try:
        from serving.server.openvino_engine import OpenVinoEngine
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--engine is {options.engine}, expected tensorflow here: no {error.name} is installed"
        ) from None
    from serving.server.requests import DEFAULT_SIGNATURE

    # It keeps the buffers of each signature and run: beside the wide one, only for the signature that most ask for.
    return OpenVinoEngine(threads=threads, runs=runs, only=DEFAULT_SIGNATURE if beside else None)


if __name__ == "__main__":
    main()
