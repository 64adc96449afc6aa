"""Files that survive a kill: whole or not there at all, and a ledger of lines that never loses a finished one."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Final, Self

PART: Final = ".part"  # the ending of a file that is being written; the next run deletes what a kill left behind


class InUse(RuntimeError):
    """Another process works in this directory."""


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to fill; it appears at `path` only when the block ends well, and then for good."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}{PART}")
    try:
        with part.open("w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    _sync_directory(path.parent)


def write(path: Path, data: bytes) -> None:
    """Write a whole file, or none."""
    with writing(path) as file:
        file.write(data)


def remove(path: Path) -> None:
    """Delete a file if it is there, for good: no crash brings it back beside what is written next."""
    path.unlink(missing_ok=True)
    _sync_directory(path.parent)


def sweep(directory: Path) -> None:
    """Delete what a killed run left half written."""
    for part in directory.rglob(f".*{PART}"):
        part.unlink(missing_ok=True)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory for this process alone, for as long as it lives. Raises InUse."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(f"another process is collecting into {directory}") from None
        yield


class Ledger:
    """An append-only file of JSON lines; each is on the disk when `append` returns. One writer, see `locked`."""

    def __init__(self, path: Path) -> None:
        """Open or begin it. A last line that a kill cut off is removed, one that a broken disk made passed over."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        self._file.seek(0)
        kept = self._file.read()
        whole = kept.rfind(b"\n") + 1
        if whole < len(kept):
            self._file.truncate(whole)
        self.lines = [entry for line in kept[:whole].split(b"\n") if (entry := _entry(line))]

    def append(self, entry: dict[str, Any]) -> None:
        """Add one line and wait for the disk."""
        self._file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.lines.append(entry)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
