"""Shows the progress of a start: one updated line on a terminal, otherwise log lines."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TextIO, TypeVar

from rankd.telemetry import terminal
from rankd.telemetry.startup import STEP_LISTENER, StartupStep

_log = logging.getLogger("rankd")

T = TypeVar("T")

# Seconds between two updates of the terminal's line, and between two log lines of one step.
_DRAW_INTERVAL, _LOG_INTERVAL = 0.2, 10.0

# No time estimate before this many seconds and this share of the step.
_MIN_ESTIMATE_SECONDS, _MIN_ESTIMATE_SHARE = 1.0, 0.02

# Carriage return, then ECMA-48's "erase to end of line".
_CLEAR = "\r\x1b[K"


@asynccontextmanager
async def show_progress(opening: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter `opening`, and show the steps that it reports."""
    async with AsyncExitStack() as stack:
        progress = _TerminalLine(sys.stderr) if _can_redraw(sys.stderr) else _LogLines()
        token = STEP_LISTENER.set(progress.on_step)
        drawing = asyncio.create_task(progress.draw())
        try:
            opened = await stack.enter_async_context(opening)
        finally:
            drawing.cancel()
            progress.end()
            STEP_LISTENER.reset(token)
        yield opened


async def await_with_progress(work: Awaitable[T]) -> T:
    """The result of `work`; shows the steps that it reports."""

    @asynccontextmanager
    async def entered() -> AsyncIterator[T]:
        yield await work

    async with show_progress(entered()) as result:
        return result


def _can_redraw(stream: TextIO | None) -> bool:
    # A dumb terminal cannot erase a line.
    return terminal.is_terminal(stream) and terminal.can_move_cursor()


class _Progress:
    """The current step and when it began."""

    def __init__(self) -> None:
        self._step: StartupStep | None = None
        self._started = 0.0
        self._done_at_start = 0
        self._ended = False

    def on_step(self, step: StartupStep) -> None:
        # Restarts of the engine report steps too, long after the start.
        if self._ended:
            return
        is_new = self._step is None or step.step != self._step.step
        if is_new:
            self._started, self._done_at_start = time.monotonic(), step.done
        self._step = step
        if is_new:
            self.on_new_step(step)

    def on_new_step(self, step: StartupStep) -> None:
        """Called when a step begins."""

    def end(self) -> None:
        self._ended = True

    def text(self) -> str:
        if self._step is None:
            return "starting"
        return sentence(self._step, time.monotonic() - self._started, self._done_at_start)


class _TerminalLine(_Progress):
    """One line of a terminal, updated in place."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream
        self._drawn = ""
        self._handlers = list(logging.getLogger().handlers)
        for handler in self._handlers:
            handler.addFilter(self._before_log_record)

    async def draw(self) -> None:
        while True:
            if self._step is None or not self._step.draws_itself:
                text = self.text()[: max(1, terminal.width(self._stream) - 1)]
                if text != self._drawn:
                    self._write(f"{_CLEAR}{text}")
                    self._drawn = text
            await asyncio.sleep(_DRAW_INTERVAL)

    def on_new_step(self, step: StartupStep) -> None:
        if step.draws_itself:
            self._clear()
            self._write(f"{step.step}\n")

    def end(self) -> None:
        super().end()
        self._clear()
        for handler in self._handlers:
            handler.removeFilter(self._before_log_record)

    def _before_log_record(self, _record: logging.LogRecord) -> bool:
        """Clear the line, so that the log record starts at its beginning."""
        self._clear()
        return True

    def _clear(self) -> None:
        if self._drawn:
            self._drawn = ""
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


class _LogLines(_Progress):
    """A log line for each step, and another every ten seconds while it lasts."""

    async def draw(self) -> None:
        while True:
            await asyncio.sleep(_LOG_INTERVAL)
            if self._step is not None and not self._step.draws_itself:
                _log.info("%s", self.text())

    def on_new_step(self, step: StartupStep) -> None:
        _log.info("%s", step.step)


def sentence(step: StartupStep, seconds: float, done_at_start: int = 0) -> str:
    """A step and its progress in words.

    Args:
        seconds: since the step began.
        done_at_start: `done` when the step began, for example the size of an earlier download.
    """
    is_measured = seconds >= _MIN_ESTIMATE_SECONDS
    if not step.total:
        return f"{step.step} ({seconds:.0f} s)" if is_measured else step.step
    done, share = step.done - done_at_start, step.done / step.total
    parts = [f"{step.step}: {share:.0%}", _amount(step)]
    if is_measured and done / step.total >= _MIN_ESTIMATE_SHARE:
        parts.append(_time_left(seconds * (step.total - step.done) / done))
    if step.then:
        parts.append(f"then {step.then}")
    return ", ".join(parts)


def _amount(step: StartupStep) -> str:
    if step.unit != "B":
        return f"{step.done} of {step.total} {step.unit}"
    unit, name = (10**9, "GB") if step.total >= 10**9 else (10**6, "MB")
    return f"{step.done / unit:.1f} of {step.total / unit:.1f} {name}"


def _time_left(seconds: float) -> str:
    if seconds < 10:
        return "less than 10 s left"
    if seconds < 90:
        return f"about {round(seconds / 10) * 10} s left"
    if seconds < 90 * 60:
        return f"about {round(seconds / 60)} min left"
    return f"about {round(seconds / 3600)} h left"
