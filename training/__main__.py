"""`python -m training`: from labelled pictures to a version directory that a model server can load."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from training import collect

RELEASE_DIR: Final = Path(__file__).parent / "release"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it did what it says."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    collect.add_command(commands)
    _add_export(commands)
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
        description="Write <models>/culture/<version>/, checked against serving/contract.py and against the checkpoint's "
        "own answers. The directory appears at once or not at all, and an existing version is never overwritten.",
    )
    export.add_argument("--release", type=Path, default=RELEASE_DIR, help="folder with model.safetensors (default: %(default)s)")
    export.add_argument("--models", type=Path, default=Path("models"), help="where versions live (default: %(default)s)")
    export.add_argument("--version", type=int, help="version number (default: the release's own)")
    export.add_argument(
        "--precision",
        choices=("float32", "bfloat16", "float16"),
        default="float32",
        help="what convolutions compute in; the file is the same size (default: %(default)s)",
    )
    export.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> None:
    from training.export import export_release  # imports TensorFlow, which takes seconds

    print(export_release(options.release, options.models, version=options.version, precision=options.precision))


if __name__ == "__main__":
    sys.exit(main())
