"""Where results go: standard output, or a file that grows by lines and can be taken up again after any kind of end."""

import io
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from gateway.cli.results import Format, FormatError, Lines, Result
from gateway.cli.sources import Picture

_ERRORS: Final = "surrogateescape"  # file names may hold bytes that are no UTF-8; they come out as they went in


class OutputError(ValueError):
    """The output cannot be begun or taken up; the text says why."""


class OutputLost(Exception):
    """The output took some results and then no more, as a full disk does; the text says why."""


@dataclass
class Earlier:
    """What an earlier run left in the output: how often each path, and how many of all are problems."""

    done: Counter[str] = field(default_factory=Counter)
    problems: int = 0


class Output:
    """Writes each result at once."""

    def __init__(self, stream: BinaryIO, lines: Lines, *, begun: bool = False) -> None:
        self._stream, self._lines = stream, lines
        if not begun:
            self._put(lines.head())

    def write(self, picture: Picture, result: Result) -> None:
        """Write one result. It is in the hands of the operating system when this returns."""
        self._put(self._lines.line(picture, result))

    def _put(self, text: str) -> None:
        data = memoryview(text.encode(errors=_ERRORS))
        try:
            while data:  # a disk that is nearly full takes a part
                data = data[self._stream.write(data) :]
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputLost(f"the output cannot be written: {error.strerror}") from error


def to_stdout(lines: Lines) -> Output:
    """Results to standard output."""
    return Output(sys.stdout.buffer, lines)


@contextmanager
def taken_up(path: Path, form: Format) -> Iterator[tuple[Output, Earlier]]:
    """The output file at `path`, new or with what an earlier run left in it. Raises OutputError.

    A file that is no output of this command is left as it is.
    """
    try:
        with path.open("a+b", buffering=0) as stream:
            stream.seek(0)
            data = stream.read()
            earlier = Earlier()
            for record in _records(path, form, data):
                earlier.done[record["path"]] += 1
                earlier.problems += bool(record["problem"])
            stream.truncate(form.whole(data))
            yield Output(stream, form, begun=form.whole(data) > 0), earlier
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}") from error


def read(path: Path, form: Format) -> Iterator[dict[str, str]]:
    """The results in the file. Raises OutputError."""
    return _records(path, form, path.read_bytes())


def _records(path: Path, form: Format, data: bytes) -> Iterator[dict[str, str]]:
    """The whole results in `data`."""
    end = form.whole(data)
    try:
        if end:
            yield from form.read(io.TextIOWrapper(io.BytesIO(data[:end]), "utf-8", _ERRORS, newline=""))
        elif not form.head().encode().startswith(data):
            raise FormatError("there is no whole line")
    except FormatError as error:
        raise OutputError(f"{path} is not an output of this command ({error}): choose another --output") from error
