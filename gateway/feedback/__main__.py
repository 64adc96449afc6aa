"""`python -m gateway.feedback export`: what people said, as CSV for the next training run."""

import argparse
import csv
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import astuple, fields
from pathlib import Path
from typing import Final, TextIO

from gateway.feedback.entries import Entry, Kept
from gateway.feedback.stores import SQLITE, open_store
from gateway.settings import PREFIX, SettingsError

FORMULA: Final = ("=", "+", "-", "@", "\t")  # what a spreadsheet computes, though somebody only wrote it
VARIABLE = f"{PREFIX}FEEDBACK_DATABASE"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when it did what it says."""
    parser = argparse.ArgumentParser(prog="python -m gateway.feedback", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    export = commands.add_parser("export", help="write all feedback as CSV to standard output")
    export.add_argument("--database", default=os.environ.get(VARIABLE, ""), metavar="URL", help=f"default: ${VARIABLE}")
    export.add_argument("--since", default="", metavar="TIME", help="only what came later, e.g. 2026-11-01")
    options = parser.parse_args(arguments)
    if not options.database:
        parser.error(f"no database: give --database or set {VARIABLE}")
    if options.database.startswith(SQLITE) and not Path(options.database.removeprefix(SQLITE)).exists():
        parser.error(f"there is no {options.database.removeprefix(SQLITE)}")  # it would be made, and empty
    try:
        with closing(open_store(options.database)) as store:
            write((kept for kept in store.all() if kept.received_at > options.since), sys.stdout)
    except (SettingsError, OSError) as error:
        print(f"python -m gateway.feedback: {error}", file=sys.stderr)
        return 1
    return 0


def write(entries: Iterable[Kept], out: TextIO) -> None:
    """One row for each entry, the oldest first."""
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["received_at", *(field.name for field in fields(Entry))])
    for kept in entries:
        rows.writerow([kept.received_at, *map(_harmless, astuple(kept.entry))])


def _harmless(cell: str) -> str:
    """The cell, with an apostrophe before what a spreadsheet would take for a formula and compute."""
    return f"'{cell}" if cell.startswith(FORMULA) else cell


if __name__ == "__main__":
    sys.exit(main())
