"""Every line of the log, whoever says it: text for people, JSON for machines.

All of it goes through `logging`: rankd's own lines, uvicorn's, those of the native engine's
worker and of vLLM's processes. What belongs to a request carries its id, and its trace's.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import IO, Any, Literal

from pythonjsonlogger.json import JsonFormatter

from rankd.context import NO_ID, REQUEST_ID, TRACE
from rankd.telemetry.terminal import has_colours

Format = Literal["auto", "text", "json"]

# Whatever could move a terminal's cursor, or end a line where a program reads them.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")

_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
_PLAIN = "\x1b[0m"

# What a record says of its request, in this order.
_OF_REQUEST = ("request_id", "trace_id", "span_id")


def configure(level: str, shape: Format = "auto") -> None:
    """Log to stderr from now on.

    Args:
        level: the least severe that is logged, by its name.
        shape: auto is text on a terminal, else JSON.
    """
    logging.basicConfig(level=level.upper(), handlers=[handler(shape)])
    logging.captureWarnings(True)


def handler(shape: Format = "auto", stream: IO[str] | None = None) -> logging.Handler:
    """What writes lines; nothing does where standard error is closed.

    Args:
        stream: standard error when absent.
    """
    # Python's own is None when the descriptor was closed at the start, which typeshed denies.
    found: IO[str] | None = sys.stderr if stream is None else stream
    if found is None:
        return logging.NullHandler()
    stream = found
    writing = logging.StreamHandler(stream)
    writing.addFilter(_name_request)
    if shape == "json" or (shape == "auto" and not stream.isatty()):
        writing.setFormatter(_json())
    else:
        writing.setFormatter(TextFormatter(colours=has_colours(stream)))
    return writing


def descriptor_handler(shape: Format = "auto") -> logging.Handler:
    """As `handler`, past whatever the process makes of `sys.stderr`.

    vLLM's older releases put the process's name before each line that is written there.
    """
    return handler(shape, os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace"))


def dict_config(shape: Format, loggers: Mapping[str, str]) -> dict[str, Any]:
    """For `logging.config.dictConfig`, in a process of someone else's.

    Args:
        loggers: the level of each, by its name.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {"rankd": {"()": f"{__name__}.descriptor_handler", "shape": shape}},
        "loggers": {
            name: {"handlers": ["rankd"], "level": level, "propagate": False}
            for name, level in loggers.items()
        },
    }


def _name_request(record: logging.LogRecord) -> bool:
    """Note whose line it is. A filter, because it runs in the task that logs."""
    if (request_id := REQUEST_ID.get()) != NO_ID:
        record.request_id = request_id
    if (ids := TRACE.get()) is not None:
        record.trace_id, record.span_id = ids
    return True


def _json() -> logging.Formatter:
    return JsonFormatter(
        ["levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp=True,
        # As `\u2028`: then no text whatever can end a line.
        json_ensure_ascii=True,
        reserved_attrs=_RESERVED,
    )


# Attributes of a record that are no fields: those of every record, and a message in colours.
_RESERVED = (
    *vars(logging.makeLogRecord({})),
    *("message", "asctime", "taskName", "color_message"),
)


class TextFormatter(logging.Formatter):
    """One line a record; further lines of a message, such as a traceback's, are indented.

    So no text that a caller sent can pass for a line of the log.
    """

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        first, *more = _CONTROL.sub(_escaped, super().format(record)).split("\n")
        for name in _OF_REQUEST:
            if hasattr(record, name):
                first += f" {name}={getattr(record, name)}"
        line = "\n    ".join((first, *more))
        colour = _COLOURS.get(record.levelno) if self._colours else None
        return f"{colour}{line}{_PLAIN}" if colour else line


def _escaped(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
