"""Says how far a start has come: on a terminal in one line that is replaced, else in the log."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TextIO, TypeVar

from rankd.telemetry import terminal
from rankd.telemetry.startup import STEP_LISTENER, StartupStep

_log = logging.getLogger("rankd")

T = TypeVar("T")

# Seconds between two pictures of the line, and between two lines of a log.
_DRAW_EVERY, _LOG_EVERY = 0.2, 10.0

# Seconds, and a share of the whole, before which nobody can say how long it takes.
_MEASURED_SECONDS, _MEASURED_SHARE = 1.0, 0.02

_CLEAR = "\r\x1b[K"


@asynccontextmanager
async def show_progress(opening: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter `opening`, and say meanwhile how far it has come."""
    async with AsyncExitStack() as stack:
        watch = _Line(sys.stderr) if _can_redraw(sys.stderr) else _Log()
        heard = STEP_LISTENER.set(watch.hear)
        drawing = asyncio.create_task(watch.draw())
        try:
            opened = await stack.enter_async_context(opening)
        finally:
            drawing.cancel()
            watch.end()
            STEP_LISTENER.reset(heard)
        yield opened


def _can_redraw(stream: TextIO | None) -> bool:
    # A dumb terminal has no way to erase a line.
    return terminal.is_terminal(stream) and terminal.can_move_cursor()


class _Progress:
    """The step that a start is in, and since when."""

    def __init__(self) -> None:
        self._now: StartupStep | None = None
        self._begun = 0.0
        self._first = 0
        self._over = False

    def hear(self, loading: StartupStep) -> None:
        # The engine's restarts tell of themselves, too, long after the start.
        if self._over:
            return
        is_new = self._now is None or loading.step != self._now.step
        if is_new:
            self._begun, self._first = time.monotonic(), loading.done
        self._now = loading
        if is_new:
            self.step(loading)

    def step(self, loading: StartupStep) -> None:
        """A step begins."""

    def end(self) -> None:
        self._over = True

    def said(self) -> str:
        if self._now is None:
            return "starting"
        return sentence(self._now, time.monotonic() - self._begun, self._first)


class _Line(_Progress):
    """One line of a terminal."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._drawn = ""
        self._handlers = list(logging.getLogger().handlers)
        for handler in self._handlers:
            handler.addFilter(self._make_room)

    async def draw(self) -> None:
        while True:
            if self._now is None or not self._now.draws_itself:
                text = self.said()[: max(1, terminal.width(self._stream) - 1)]
                if text != self._drawn:
                    self._write(f"{_CLEAR}{text}")
                    self._drawn = text
            await asyncio.sleep(_DRAW_EVERY)

    def step(self, loading: StartupStep) -> None:
        if loading.draws_itself:
            self._clear()
            self._write(f"{loading.step}\n")

    def end(self) -> None:
        super().end()
        self._clear()
        for handler in self._handlers:
            handler.removeFilter(self._make_room)

    def _make_room(self, _record: logging.LogRecord) -> bool:
        """A message of the log begins at the line's beginning, not behind it."""
        self._clear()
        return True

    def _clear(self) -> None:
        if self._drawn:
            self._drawn = ""
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _Log(_Progress):
    """A message for each step, and every ten seconds while it lasts."""

    async def draw(self) -> None:
        while True:
            await asyncio.sleep(_LOG_EVERY)
            if self._now is not None and not self._now.draws_itself:
                _log.info("%s", self.said())

    def step(self, loading: StartupStep) -> None:
        _log.info("%s", loading.step)


def sentence(loading: StartupStep, seconds: float, first: int = 0) -> str:
    """A step in words.

    Args:
        seconds: since it began.
        first: what was done at its beginning already, by an earlier start perhaps.
    """
    if not loading.total:
        return f"{loading.step} ({seconds:.0f} s)" if seconds >= _MEASURED_SECONDS else loading.step
    done, share = loading.done - first, loading.done / loading.total
    parts = [f"{loading.step}: {share:.0%}", _counted(loading)]
    if seconds >= _MEASURED_SECONDS and done / loading.total >= _MEASURED_SHARE:
        parts.append(_left(seconds * (loading.total - loading.done) / done))
    if loading.then:
        parts.append(f"then {loading.then}")
    return ", ".join(parts)


def _counted(loading: StartupStep) -> str:
    if loading.unit != "B":
        return f"{loading.done} of {loading.total} {loading.unit}"
    unit, name = (10**9, "GB") if loading.total >= 10**9 else (10**6, "MB")
    return f"{loading.done / unit:.1f} of {loading.total / unit:.1f} {name}"


def _left(seconds: float) -> str:
    if seconds < 10:
        return "some seconds left"
    if seconds < 90:
        return f"about {round(seconds / 10) * 10} s left"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min left"
    return f"about {round(seconds / 3600)} h left"
