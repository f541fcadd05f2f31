"""Configures logging: JSON, or text on a terminal, with the ids of the request.

All log lines go through `logging`: rankd's, uvicorn's, those of the native engine's worker
and of vLLM's processes. Lines of a request carry its request id and its trace ids.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO

from pythonjsonlogger.json import JsonFormatter

from rankd.context import NO_ID, REQUEST_ID, TRACE
from rankd.telemetry.log_stream import LogStream
from rankd.telemetry.terminal import has_colours

Format = Literal["auto", "text", "json"]

# Characters that can move a terminal's cursor, or end a line.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")

_COLOURS = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}
_RESET = "\x1b[0m"

# Attributes of a record that identify its request, in the order of a text line.
_REQUEST_IDS = ("request_id", "trace_id", "span_id")


def configure(level: str, shape: Format = "auto") -> None:
    """Log to standard error from now on.

    Args:
        level: name of the lowest level that is logged.
        shape: `auto` is text on a terminal, otherwise JSON.
    """
    logging.basicConfig(level=level.upper(), handlers=[handler(shape)])
    logging.captureWarnings(True)


def handler(shape: Format = "auto", stream: TextIO | None = None) -> logging.Handler:
    """The handler that writes log lines; discards them if standard error is closed.

    Args:
        stream: default standard error.
    """
    # sys.stderr is None when the descriptor was closed at the start; typeshed does not know.
    target: TextIO | None = sys.stderr if stream is None else stream
    if target is None:
        return logging.NullHandler()
    is_json = shape == "json" or (shape == "auto" and not target.isatty())
    formatter = _json() if is_json else TextFormatter(colours=has_colours(target))
    stream_handler = logging.StreamHandler[Any](_never_blocking(target, formatter))
    stream_handler.addFilter(_add_request_ids)
    stream_handler.setFormatter(formatter)
    return stream_handler


# The streams of this process's handlers that may hold lines.
_streams: list[LogStream] = []


def write_waiting() -> int:
    """Write log lines that wait for the reader of standard error, without blocking.

    Returns:
        Lines that were dropped since the last call.
    """
    return sum([stream.write_waiting() for stream in _streams])


def _never_blocking(target: TextIO, formatter: logging.Formatter) -> TextIO | LogStream:
    """A stream that does not wait for the reader of a pipe; files and other objects unchanged."""

    def notice(dropped: int) -> str:
        text = f"{dropped} log lines were dropped: nothing read standard error"
        record = logging.LogRecord("rankd", logging.WARNING, __file__, 0, text, None, None)
        return f"{formatter.format(record)}\n"

    try:
        stream = LogStream(target, notice)
    except OSError:  # io.UnsupportedOperation, of streams in memory, is one.
        return target
    _streams.append(stream)
    return stream


def descriptor_handler(shape: Format = "auto") -> logging.Handler:
    """A handler for file descriptor 2, which ignores a replaced `sys.stderr`.

    Older releases of vLLM replace `sys.stderr` and prefix each line with the process's name.
    """
    return handler(shape, os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace"))


def dict_config(shape: Format, loggers: Mapping[str, str]) -> dict[str, Any]:
    """A configuration for `logging.config.dictConfig`, in a process that rankd does not start.

    Args:
        loggers: logger name → level.
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


def _add_request_ids(record: logging.LogRecord) -> bool:
    """Add the ids to a record. A filter, because filters run in the task that logs."""
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
        # Escapes U+2028 and the like, so that no text can end a line.
        json_ensure_ascii=True,
        reserved_attrs=_RESERVED,
    )


# Attributes of every record, and uvicorn's coloured message: not added to the JSON.
_RESERVED = (
    *vars(logging.makeLogRecord({})),
    *("message", "asctime", "taskName", "color_message"),
)


class TextFormatter(logging.Formatter):
    """One line per record; further lines of a message, such as a traceback's, are indented.

    So no text of a request can look like a log line.
    """

    def __init__(self, *, colours: bool = False) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        first, *more = _CONTROL.sub(_escaped, super().format(record)).split("\n")
        for name in _REQUEST_IDS:
            if hasattr(record, name):
                first += f" {name}={getattr(record, name)}"
        line = "\n    ".join((first, *more))
        colour = _COLOURS.get(record.levelno) if self._colours else None
        return f"{colour}{line}{_RESET}" if colour else line


def _escaped(match: re.Match[str]) -> str:
    return ascii(match[0])[1:-1]
