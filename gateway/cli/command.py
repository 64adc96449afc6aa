"""The command line: what can be asked for, what is told on the way, and the exit status."""

import argparse
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Final

from gateway import drift
from gateway.cli import output
from gateway.cli.asking import ask
from gateway.cli.output import Earlier, Output, OutputError, OutputLost
from gateway.cli.progress import Progress
from gateway.cli.results import Csv, Format, JsonLines, Lines, Sentences
from gateway.cli.sources import Picture, SourceError, Sources, find
from gateway.remote import Answer, Failed, Refused, Unavailable, Whence

ALL_ANSWERED: Final = 0
SOME_PROBLEMS: Final = 1
WRONG_USE: Final = 2
NOT_ALL: Final = 3
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it

_ABOUT: Final = "Ask a running Whence from which culture artworks come."
_EXAMPLES: Final = """\
examples:
  whence classify vase.jpg
        one sentence, if the service runs on this machine (make run)
  whence classify photos/ scans/*.tif -o answers.csv --html sheet.html
        folders are searched for pictures; the sheet shows each beside its answer
  whence classify catalogue.csv -o answers.csv
        every row of the catalogue, its columns kept, the answer in columns whence_...;
        pictures are looked for beside the catalogue, or under --root
  whence classify catalogue.csv -o answers.csv
        the same again: goes on where it was stopped, by Ctrl-C, a crash or a service that went away

what the answer says:
  accepted             resembles objects catalogued under the culture; it is no attribution
  abstained            the likeliest culture is too unlikely to say so
  out_of_distribution  like none of the cultures that it knows: put no weight on the culture

exit status:
  0  every picture has an answer
  1  some have a problem instead, such as a broken file; the output says which
  2  wrong use: nothing was asked
  3  some have neither, because the service failed or the disk is full; the same command asks only for those
  130  interrupted; the same command goes on
"""


class _Misuse(ValueError):
    """Options that do not go together, or a value that cannot be; the text says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return int(options.run(options))
    except KeyboardInterrupt:
        print("whence: interrupted; with --output the same command goes on where it was", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOT_ALL
    except OutputLost as error:
        print(f"whence: {error}", file=sys.stderr)
        return NOT_ALL
    except (SourceError, OutputError, _Misuse, drift.NoReport, OSError) as error:
        print(f"whence: {error}", file=sys.stderr)
        return WRONG_USE


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("whence", description=_ABOUT, epilog=_EXAMPLES, formatter_class=kind)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    classify = commands.add_parser(
        "classify", help="pictures in, cultures out", description=_ABOUT, epilog=_EXAMPLES, formatter_class=kind
    )
    add = classify.add_argument
    add("paths", nargs="+", type=Path, metavar="PATH", help="a picture, a folder, or a catalogue (.csv, .tsv)")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="write to FILE (.csv or .jsonl) and go on with what is in it already",
    )
    add("--format", choices=("csv", "jsonl", "text"), help="default: by the name of FILE; to a terminal text, else csv")
    add(
        "--html",
        type=_sheet,
        metavar="FILE",
        help="also make a contact sheet of everything in the output; needs --output",
    )
    add("--top", type=_count, default=3, metavar="N", help="how many cultures to list for each picture (3)")
    add(
        "--column",
        metavar="NAME",
        help="the catalogue's column with the path of the picture (path, file, filename ...)",
    )
    add("--root", type=Path, metavar="FOLDER", help="where the catalogue's paths begin (beside the catalogue)")
    add("--url", type=_address, default="http://127.0.0.1:8080", help="where the service is (%(default)s)")
    add("--key-file", type=_key, dest="key", metavar="FILE", help="file with the API key, if the service wants one")
    add("--jobs", type=_count, default=4, metavar="N", help="pictures under way at once (4)")
    add(
        "--patience",
        type=_seconds,
        default=300,
        metavar="S",
        help="seconds to wait for a service that is busy or away (300)",
    )
    add("-q", "--quiet", action="store_true", help="no progress, no summary")
    classify.set_defaults(run=_classify)
    drift.add_command(commands)
    return parser


def _key(text: str) -> str:
    """The API key in a file: never on the command line, where other people of the machine can read it."""
    try:
        words = Path(text).read_text(encoding="ascii").split()
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"cannot read {text}: {error}") from error
    if len(words) != 1:
        raise argparse.ArgumentTypeError(f"expected the key and nothing else in {text}")
    return words[0]


def _address(text: str) -> str:
    try:
        Whence(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= 256:
        raise argparse.ArgumentTypeError("expected a whole number from 1 to 256")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError("expected a number of seconds")
    return number


def _sheet(text: str) -> Path:
    """Where the sheet goes. What is there is written over: a picture or a table must not be."""
    path = Path(text)
    if path.suffix.lower() not in (".html", ".htm"):
        raise argparse.ArgumentTypeError(f"expected a name that ends in .html, not {text}")
    if not os.path.isdir(path.absolute().parent):  # Path.is_dir raises where it may not look
        raise argparse.ArgumentTypeError(f"there is no folder {path.parent}")
    return path


def _classify(options: argparse.Namespace) -> int:
    if options.html and not options.output:
        raise _Misuse("--html needs --output: the sheet is made of what is in it")
    if options.html and options.html.resolve() == options.output.resolve():
        raise _Misuse("--html and --output are the same file")
    sources = find(options.paths, column=options.column, root=options.root)
    if options.output is None:
        return _run(sources, output.to_stdout(_lines(options, sources)), Earlier(), options)
    form = _format(options, sources)
    with output.taken_up(options.output, form) as (out, earlier):
        try:
            return _run(sources, out, earlier, options)
        finally:
            if options.html:
                _write_sheet(options, sources, form)


def _write_sheet(options: argparse.Namespace, sources: Sources, form: Format) -> None:
    """Make the sheet of the whole output. Raises OutputLost."""
    from gateway.cli import sheet  # numpy and Pillow: only who wants the sheet waits for them

    try:
        found = list(output.read(options.output, form))
    except OSError as error:
        raise OutputLost(f"{options.output} cannot be read: {error.strerror}") from error
    try:
        sheet.write(options.html, found, sources.pictures)
    except OSError as error:
        raise OutputLost(f"{options.html} cannot be written: {error.strerror}") from error


def _lines(options: argparse.Namespace, sources: Sources) -> Lines:
    """How standard output is written."""
    name = options.format or ("text" if sys.stdout.isatty() else "csv")
    return Sentences() if name == "text" else _FORMATS[name](options, sources)


def _format(options: argparse.Namespace, sources: Sources) -> Format:
    """How the output file is written."""
    name = options.format or options.output.suffix.lower().removeprefix(".")
    if name not in _FORMATS:
        raise _Misuse(f"{options.output} has to be CSV or JSON lines: end its name in .csv or .jsonl, or say --format")
    return _FORMATS[name](options, sources)


_FORMATS: Final[Mapping[str, Callable[[argparse.Namespace, Sources], Format]]] = {
    "csv": lambda options, sources: Csv(sources.columns, options.top),
    "jsonl": lambda options, _: JsonLines(options.top),
}


def _run(sources: Sources, out: Output, earlier: Earlier, options: argparse.Namespace) -> int:
    """Ask about every picture that has no result yet, and tell what came of it."""
    wanted = _without(sources.pictures, earlier.done)
    answered = refused = 0
    before = len(sources.pictures) - len(wanted)
    drawn = options.output is not None or not sys.stdout.isatty()  # never into the answers on the same terminal
    with Progress(len(sources.pictures), before, sys.stderr, drawn=drawn, quiet=options.quiet) as progress:
        whence = Whence(
            options.url,
            patience_s=options.patience,
            key=options.key,
            on_pause=lambda error: progress.note(f"whence: waiting, because {error}"),
        )
        try:
            with whence, closing(ask(wanted, whence, jobs=options.jobs)) as outcomes:
                for picture, outcome in outcomes:
                    if isinstance(outcome, Failed):
                        progress.say(f"whence: {picture.path}: {outcome}")
                    else:
                        out.write(picture, outcome)
                        answered += isinstance(outcome, Answer)
                        refused += isinstance(outcome, Refused)
                    progress.step()
        except Unavailable as error:
            progress.say(f"whence: {error}")
    left = len(wanted) - answered - refused
    if options.output and not options.quiet:
        parts = [f"{answered:,} answered", f"{refused:,} with a problem"]
        parts += [f"{before:,} done before"] * (before > 0) + [f"{left:,} left for the same command"] * (left > 0)
        print(f"whence: {', '.join(parts)}", file=sys.stderr)
    return NOT_ALL if left else SOME_PROBLEMS if refused + earlier.problems else ALL_ANSWERED


def _without(pictures: Sequence[Picture], done: Counter[str]) -> list[Picture]:
    """The pictures that are not done; one that a catalogue has twice has to be done twice."""
    left = done.copy()
    wanted = []
    for picture in pictures:
        if left[picture.path]:
            left[picture.path] -= 1
        else:
            wanted.append(picture)
    return wanted
