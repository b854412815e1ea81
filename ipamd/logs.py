"""Logs: one JSON object a line, on stderr. Shell."""

from __future__ import annotations

import json
import logging
from typing import Final

_OWN: Final = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", None, None)) | {"message": "", "taskName": ""}
)


class JsonFormatter(logging.Formatter):
    """A constant event plus its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as one line of JSON."""
        line: dict[str, object] = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{record.msecs:03.0f}",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(level: int = logging.INFO) -> None:
    """Send everything from *level* on to stderr; the libraries only their warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler])
    for library in ("boto3", "botocore", "urllib3"):
        logging.getLogger(library).setLevel(logging.WARNING)


def set_level(level: str) -> None:
    """Log from *level* on, a word that `logging` knows."""
    logging.getLogger().setLevel(level)
