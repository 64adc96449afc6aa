"""Logs: one JSON object a line on standard output, never anything of an upload. Standard library only."""

import json
import logging
from datetime import UTC, datetime
from typing import Any


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; `extra={"fields": {...}}` adds members."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def config(level: str) -> dict[str, Any]:
    """For logging.config.dictConfig: everything of ours and of gunicorn as JSON lines on standard output."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonFormatter}},
        "handlers": {"stdout": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "json"}},
        "root": {"level": "WARNING", "handlers": ["stdout"]},
        "loggers": {
            "whence": {"level": level.upper()},
            "gunicorn.error": {"level": level.upper(), "handlers": ["stdout"], "propagate": False},
            # What is wrong with a picture is told to its sender, not to whoever watches the service.
            "PIL": {"level": "CRITICAL"},
            "gunicorn.access": {"level": "CRITICAL", "propagate": False},
        },
    }
