"""Looks at the disk: which version directories a model has, and whether one of them has changed."""

import os
from pathlib import Path

Fingerprint = tuple[int, int, int]


def versions(base_path: Path) -> dict[int, Path] | None:
    """The directories whose name is a number, by number; None when the folder itself cannot be read.

    Any other name, such as that of a copy in progress, is passed over: publish a version by renaming a finished copy.
    """
    try:
        with os.scandir(base_path) as entries:
            return {int(entry.name): Path(entry.path) for entry in entries if _is_version(entry)}
    except OSError:
        return None


def fingerprint(path: Path) -> Fingerprint:
    """Changes when a file below the path is added, removed or rewritten: files, bytes, newest change in ns."""
    files = size = newest = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                stat = os.stat(os.path.join(folder, name))
            except OSError:  # gone since it was listed
                continue
            files, size, newest = files + 1, size + stat.st_size, max(newest, stat.st_mtime_ns)
    return files, size, newest


def _is_version(entry: "os.DirEntry[str]") -> bool:
    # 19 digits fit the int64 of the API; "007" would be a second name for version 7.
    name = entry.name
    if not (name.isascii() and name.isdecimal() and str(int(name)) == name and int(name) < 1 << 63):
        return False
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or into a folder that we may not look into
        return False
