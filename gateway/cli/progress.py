"""A line on the terminal that tells how far it is; where nobody watches, only what has to be told."""

import shutil
import threading
import time
from types import TracebackType
from typing import Self, TextIO


class Progress:
    """How many of `total` are done, `done` of them before it began. Threads may call it."""

    def __init__(self, total: int, done: int, stream: TextIO, *, drawn: bool = True, quiet: bool = False) -> None:
        """`drawn`: whether there may be a bar, given a terminal; `quiet`: only what is said stays."""
        self._total, self._before, self._done = total, done, done
        self._stream, self._quiet = stream, quiet
        self._drawn = drawn and not quiet and stream.isatty()
        self._begin = time.monotonic()
        self._note = ""
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def step(self) -> None:
        """One more is done."""
        with self._lock:
            self._done += 1
            self._note = ""
            self._draw()

    def note(self, text: str) -> None:
        """Tell what is being waited for, beside the bar or once in a line of its own."""
        with self._lock:
            if not self._drawn and not self._quiet and text != self._note:
                self._stream.write(f"{text}\n")
            self._note = text
            self._draw()

    def say(self, text: str) -> None:
        """Leave a line that stays."""
        with self._lock:
            self._stream.write(f"\r\x1b[K{text}\n" if self._drawn else f"{text}\n")
            self._draw()

    def _draw(self) -> None:
        if not self._drawn:
            return
        columns = shutil.get_terminal_size().columns
        share = self._done / self._total if self._total else 1.0
        bar = "█" * round(20 * share) + "░" * (20 - round(20 * share))
        line = f"{bar} {self._done:,} of {self._total:,}  {self._note or self._pace()}"
        self._stream.write(f"\r\x1b[K{line[: columns - 1]}")
        self._stream.flush()

    def _pace(self) -> str:
        seconds, fresh = time.monotonic() - self._begin, self._done - self._before
        if not fresh or not seconds:
            return ""
        left = round((self._total - self._done) * seconds / fresh)
        return f"{fresh / seconds:.1f}/s  {left // 60}:{left % 60:02d} left"
