"""A model from the hub into the hub's cache: how far it is, and given up when nobody waits."""

from __future__ import annotations

import asyncio
import contextvars
import io
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from rankd.errors import BadModel
from rankd.telemetry.startup import StartupStep, report_step

T = TypeVar("T")

# The thread that fetches; whoever ends the process can see by it whether one still does.
THREAD = "fetch"

_PATTERNS = ["*.json", "*.safetensors", "merges.txt", "vocab.txt"]


class _GivenUp(BaseException):
    """Nobody waits for it any more; no `Exception`, which the hub's client would try again."""


def download(model: str, revision: str | None, given_up: threading.Event) -> Path:
    """The model's folder in the hub's cache; what is there already is not fetched again.

    Args:
        given_up: when set, downloads end with their next piece.

    Raises:
        BadModel: it is not there, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    report_step(StartupStep(f"looking for {model} on the hub"))
    try:
        bars = _bars(f"downloading {model}", given_up)
        return Path(
            snapshot_download(model, revision=revision, allow_patterns=_PATTERNS, tqdm_class=bars)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as problem:
        reason = next(iter(str(problem).strip().splitlines()), repr(problem))
        raise BadModel(
            f"{model!r} is no folder here and could not be fetched from the hub: {reason}"
        ) from None


def _bars(step: str, given_up: threading.Event) -> Any:
    """A class of tqdm's bars that draw nothing, and tell how far all of them are.

    The hub's client has one for files and, since its 1.0, two for bytes: received, and
    written. What counts is the one that is behind.
    """
    from tqdm import tqdm

    told: list[Any] = []
    context = contextvars.copy_context()  # The client's own threads have none.

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "file": io.StringIO(), "disable": False})
            self.miniters, self.mininterval = 0, 0.1
            told.append(self)

        def update(self, n: float | None = 1) -> bool | None:
            if given_up.is_set():
                raise _GivenUp
            return super().update(n)

        def display(self, *_: Any, **__: Any) -> None:
            if told:  # A bar draws itself for the first time before it is made.
                context.copy().run(report_step, _far(step, told))

    return Bar


def _far(step: str, bars: list[Any]) -> StartupStep:
    in_bytes = [bar for bar in bars if bar.unit == "B" and bar.total]
    behind = min(in_bytes or bars, key=lambda bar: bar.n)
    unit = "B" if in_bytes else "files"
    return StartupStep(step, int(behind.n), int(behind.total or 0), unit, then="it is loaded")


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """What `work` returns, run in a thread that does not keep a process from ending.

    A thread cannot be cancelled, and one of asyncio's own would be waited for: Ctrl-C
    while gigabytes arrive would seem to do nothing.

    Args:
        work: is given an event that is set when nobody waits for it any more.
    """
    given_up, future = threading.Event(), Future[T]()

    def run() -> None:
        future.set_running_or_notify_cancel()  # From here on nobody can cancel it.
        try:
            future.set_result(work(given_up))
        except BaseException as problem:
            future.set_exception(problem)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name=THREAD, daemon=True).start()
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        given_up.set()
        raise


def is_fetching() -> bool:
    """Whether a download that was given up still waits for its next piece."""
    return any(thread.name == THREAD for thread in threading.enumerate())
