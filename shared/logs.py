"""Log lines: a sentence, and fields given as `extra`. On stderr, as text or one JSON object a line."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal, TextIO

LogFormat = Literal["text", "json"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CHATTY = ("aiohttp", "amqp", "asyncio", "celery", "kombu", "kubernetes")
"""Their INFO is noise here, and their DEBUG prints what passes through them."""


def configure_logging(*, log_format: LogFormat, level: str, stream: TextIO | None = None) -> None:
    """Send every log record to `stream` (stderr), in one format."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


class TextFormatter(logging.Formatter):
    """`2026-01-02T03:04:05.678Z INFO drain_hook.drainer: Sentence. field=value`."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_moment(record)} {record.levelname} {record.name}: {record.getMessage()}"
        fields = "".join(f" {key}={_inline(value)}" for key, value in _fields(record).items())
        trace = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return line + fields + trace


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, message, the fields, and `exception` with a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": _moment(record),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(dict(_fields(record)) | document, default=str, ensure_ascii=False)


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _inline(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    if not text.isprintable():
        # A user's name is whatever a review says; escape sequences would reach the terminal.
        return json.dumps(text)
    return json.dumps(text, ensure_ascii=False) if any(c.isspace() or c == '"' for c in text) else text


def _moment(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"
