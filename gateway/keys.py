"""API keys: who may ask. A file holds a name and the SHA-256 of a key on each line, so that it gives no key away.

    # name       SHA-256 of the key
    catalogue    9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08

`python -m gateway.keys NAME` makes a new key and its line. Keys are 32 random bytes, so one plain hash is enough.
"""

import hmac
import logging
import re
import secrets
import sys
import threading
import time
from hashlib import sha256
from pathlib import Path
from typing import Final

from gateway.settings import SettingsError

log = logging.getLogger("whence.keys")

LOOK_EVERY_S: Final = 1.0  # how often the file is looked at for changes
_LINE: Final = re.compile(r"(?P<name>[\w.-]{1,64})\s+(?P<hash>[0-9a-f]{64})")


def parse(text: str) -> dict[str, str]:
    """Names and hashes. Raises ValueError, naming the line (but not what is in it)."""
    keys: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None or match["name"] in keys:
            raise ValueError(f"line {number} is no new name and the SHA-256 of a key in hexadecimal")
        keys[match["name"]] = match["hash"]
    return keys


class Keys:
    """The keys of a file, read again when it changes. A file that has become wrong changes nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._looked = time.monotonic()
        try:
            self._stamp = self._stat()
            self._keys = parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"WHENCE_API_KEYS_FILE is {str(path)!r}, expected a file of keys: {error}") from error

    def owner(self, key: str) -> str | None:
        """Whose key this is, or None. Takes the same time whichever key it is."""
        self._reload()
        presented = sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        found = None
        for name, known in self._keys.items():
            if hmac.compare_digest(known, presented):
                found = name
        return found

    def _stat(self) -> tuple[int, int, int]:
        status = self._path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _reload(self) -> None:
        now = time.monotonic()
        with self._lock:
            if now - self._looked < LOOK_EVERY_S:
                return
            self._looked = now
            try:
                stamp = self._stat()
                if stamp == self._stamp:
                    return
                self._stamp = stamp
                self._keys = parse(self._path.read_text(encoding="utf-8"))
                log.info("read %d API keys", len(self._keys))
            except (OSError, ValueError) as error:
                log.error("the file of API keys is not read, those known before stay: %s", error)


def new_key(name: str) -> tuple[str, str]:
    """A new key, and the line for the file."""
    key = secrets.token_urlsafe(32)
    return key, f"{name} {sha256(key.encode()).hexdigest()}"


def main(arguments: list[str]) -> int:
    """Print a new key for the name in `arguments`."""
    if len(arguments) != 1 or not re.fullmatch(r"[\w.][\w.-]{0,63}", arguments[0]):
        print(
            "usage: python -m gateway.keys NAME\n\n"
            "Prints a new key, and the line (name and SHA-256) for WHENCE_API_KEYS_FILE.",
            file=sys.stderr,
        )
        return 2
    key, line = new_key(arguments[0])
    print(f"key, shown this once:  {key}\nline for the file:     {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
