"""`python -m training`: from labelled pictures to a version directory that a model server can load."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from training import collect, decisions, index, pipeline, reference, reproduce, retrieval

RELEASE_DIR: Final = Path(__file__).parent / "release"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did what it says."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    collect.add_command(commands)
    pipeline.add_commands(commands, RELEASE_DIR)
    _add_export(commands)
    index.add_command(commands, RELEASE_DIR)
    retrieval.add_command(commands)
    decisions.add_command(commands)
    reference.add_command(commands, RELEASE_DIR)
    reproduce.add_command(commands, RELEASE_DIR)
    _add_ranges(commands)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, RuntimeError) as error:
        print(f"python -m training: {error}", file=sys.stderr)
        return 1
    return 0


def _add_export(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    export = commands.add_parser(
        "export",
        help="write the released checkpoint as a SavedModel",
        description="Write <models>/culture/<version>/, checked against serving/contract.py and against the "
        "checkpoint's own answers. The directory appears at once or not at all, and a version is never overwritten.",
    )
    export.add_argument(
        "--release", type=Path, default=RELEASE_DIR, help="folder with model.safetensors (default: %(default)s)"
    )
    export.add_argument(
        "--models", type=Path, default=Path("models"), help="where versions live (default: %(default)s)"
    )
    export.add_argument("--version", type=int, help="version number (default: the release's own)")
    export.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16", "int8"),
        default="float32",
        help="what convolutions compute in; int8 is not a SavedModel but an OpenVINO model in <models>/culture-int8, "
        "made in the environment of `make .venv/int8.ready` (default: %(default)s)",
    )
    export.add_argument(
        "--constants",
        action="store_true",
        help="make the weights constants of the graph instead of variables: for TensorFlow Serving on a CPU with AMX, "
        "quicker runs for more memory; the embedded server does so by itself, and int8 has no variables",
    )
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    if options.precision == "int8":
        from training.int8 import export_int8  # imports OpenVINO, which only the extra `int8` has

        print(export_int8(options.release, options.models, version=options.version))
        return
    from training.export import export_release  # imports TensorFlow, which takes seconds

    print(
        export_release(
            options.release,
            options.models,
            version=options.version,
            precision=options.precision,
            constants=options.constants,
        )
    )


def _add_ranges(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    ranges = commands.add_parser(
        "ranges",
        help="measure what int8 needs to know of a release",
        description="Measure the range of each activation on pictures of the training part and write it to "
        "<release>/int8.json. To be done once for each released checkpoint; `export --precision int8` reads it.",
    )
    ranges.add_argument(
        "--release", type=Path, default=RELEASE_DIR, help="folder with model.safetensors (default: %(default)s)"
    )
    ranges.add_argument("--prepared", type=Path, required=True, help="what `prepare` wrote")
    ranges.add_argument("--pictures", type=int, default=256, help="how many to look at (default: %(default)s)")
    ranges.set_defaults(run=_ranges)


def _ranges(options: argparse.Namespace) -> None:
    from training.int8 import write_ranges

    print(write_ranges(options.release, options.prepared, pictures=options.pictures))


if __name__ == "__main__":
    sys.exit(main())
