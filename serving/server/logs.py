"""One line per event on stderr: time, level, event, then key=value."""

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

LOGGER: Final = logging.getLogger("serving.server")
_NOISE: Final = (b"before absl::InitializeLog()", b"oneDNN custom operations are on")
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:,+*@[]()")


class LineFormatter(logging.Formatter):
    """Renders a record as `2026-11-24T23:20:01.123Z INFO version available model=culture version=1`."""

    converter = staticmethod(time.gmtime)

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the values hold: one with a space or a control character is written as a JSON string."""
        stamp = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')}.{int(record.msecs):03}Z"
        line = f"{stamp} {record.levelname} {record.getMessage()}"
        for key, value in getattr(record, "fields", {}).items():
            line += f" {key}={_word(str(value))}"
        if record.exc_info:
            line += f" traceback={json.dumps(self.formatException(record.exc_info))}"
        return line


def event(level: int, text: str, /, *, traceback: bool = False, **fields: object) -> None:
    """Logs one event with its fields; `traceback` adds that of the exception being handled."""
    LOGGER.log(level, text, extra={"fields": fields}, exc_info=traceback)


def set_up() -> None:
    """Sends our events to stderr and quiets the libraries that would write beside them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    for noisy in ("tensorflow", "absl", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.ERROR)


@contextmanager
def without_noise() -> Iterator[None]:
    """Drops two lines that TensorFlow writes to stderr while it is imported, and that no setting turns off."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held.seek(0)
            for line in held:
                if not any(noise in line for noise in _NOISE):
                    os.write(2, line)


def _word(text: str) -> str:
    return text if text and _PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=False)
