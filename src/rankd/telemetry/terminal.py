"""What the terminal can do: how wide it is, whether it shows colours, what it can spell."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from typing import IO

# Where nobody says how wide: what every terminal was for decades.
_WIDTH = 80

# ECMA-48's "select graphic rendition".
_STYLES = {"bold": "1", "faint": "2", "red": "31", "green": "32"}


def is_terminal(stream: IO[str] | None) -> bool:
    """Whether a person reads it; a stream that the caller closed is None."""
    return stream is not None and stream.isatty()


def width(stream: IO[str] | None) -> int:
    """Columns of the terminal behind a stream; `COLUMNS` beats what it says itself."""
    if (given := os.environ.get("COLUMNS", "")).isdecimal() and int(given) > 0:
        return int(given)
    try:
        assert stream is not None
        return os.get_terminal_size(stream.fileno()).columns or _WIDTH
    except (AssertionError, OSError, ValueError):
        return _WIDTH


def can_move_cursor() -> bool:
    """Whether terminals here obey escape sequences."""
    return os.environ.get("TERM", "dumb") != "dumb"


def has_colours(stream: IO[str] | None, environment: Mapping[str, str] | None = None) -> bool:
    """By NO_COLOR (no-color.org), then FORCE_COLOR, then TERM, then whether it is a terminal."""
    environment = os.environ if environment is None else environment
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR"):
        return True
    return environment.get("TERM") != "dumb" and is_terminal(stream)


def styled(text: str, style: str, stream: IO[str] | None) -> str:
    """The text in bold, faint, red or green, where colours are shown."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if has_colours(stream) else text


def prepare() -> None:
    """Let no character and no closed stream end a command with a traceback.

    What cannot be spelled in the locale's encoding is written as `\\u4e2d`. A standard
    stream that the caller closed becomes /dev/null: else the next socket would take its
    number, and whatever a library prints would go there. `sys.stdout` and `sys.stderr` write
    to it then, so that nobody has to ask whether they are None; `sys.stdin` stays None, and
    who reads it says that it is closed.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # It takes the lowest number that is free.
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", encoding="utf-8", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def as_utf8(argument: str) -> str:
    """Text of the command line whose bytes the locale could not read, but UTF-8 can."""
    try:
        return os.fsencode(argument).decode()
    except UnicodeError:
        return argument


def use_utf8() -> None:
    """Standard output carries data from here on: JSON and TOML are UTF-8 in any locale."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
