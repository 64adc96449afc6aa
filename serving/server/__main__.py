"""`python -m serving.server`: reads the flags, quiets TensorFlow, serves, and ends with the right exit status."""

import asyncio
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow is imported: errors only

from serving.server import flags, logs
from serving.server.config import ConfigError


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
        from serving.server.tensorflow_engine import TensorFlowEngine

    engine = TensorFlowEngine(intra_op=options.intra_op, inter_op=options.inter_op, precision=options.precision)
    return await serve(options, engine)


if __name__ == "__main__":
    main()
