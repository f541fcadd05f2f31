"""Properties of the terminal: width, colours, and the encoding of the standard streams."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from typing import IO

# Columns of a terminal whose width is unknown.
_DEFAULT_WIDTH = 80

# ECMA-48's "select graphic rendition".
_STYLES = {"bold": "1", "faint": "2", "red": "31", "green": "32"}


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether the stream is a terminal; None is a stream that was closed at the start."""
    return stream is not None and stream.isatty()


def width(stream: IO[str] | None) -> int:
    """Columns of the terminal behind a stream; the variable `COLUMNS` overrides its size."""
    if (columns := os.environ.get("COLUMNS", "")).isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        assert stream is not None
        return os.get_terminal_size(stream.fileno()).columns or _DEFAULT_WIDTH
    except (AssertionError, OSError, ValueError):
        return _DEFAULT_WIDTH


def can_move_cursor() -> bool:
    """Whether the terminal supports escape sequences, by `TERM`."""
    return os.environ.get("TERM", "dumb") != "dumb"


def has_colours(stream: IO[str] | None, environment: Mapping[str, str] | None = None) -> bool:
    """Whether to use colours: NO_COLOR (no-color.org), then FORCE_COLOR, TERM and is_terminal.

    Args:
        environment: default `os.environ`.
    """
    environment = os.environ if environment is None else environment
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return environment.get("TERM") != "dumb" and is_terminal(stream)


def styled(text: str, style: str, stream: IO[str] | None) -> str:
    """The text in `bold`, `faint`, `red` or `green`, if the stream has colours."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if has_colours(stream) else text


def prepare() -> None:
    """Make the standard streams safe to use, whatever the locale and however they were opened.

    Characters outside the locale's encoding are written as `\\u4e2d`. A closed standard
    stream is replaced by /dev/null: otherwise the next socket would get its descriptor, and
    receive what libraries print. `sys.stdout` and `sys.stderr` then write to /dev/null, so
    they are never None; `sys.stdin` stays None.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # Gets the lowest free descriptor: this one.
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def as_utf8(argument: str) -> str:
    """A command line argument decoded as UTF-8, or unchanged if its bytes are not UTF-8."""
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        return argument


def use_utf8() -> None:
    """Write standard output as UTF-8 in any locale, for JSON and TOML."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
