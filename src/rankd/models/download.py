"""Downloads a model from the hub into the hub's cache, with progress and cancellation."""

from __future__ import annotations

import asyncio
import contextvars
import io
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from rankd.errors import BadModel
from rankd.models import hub_errors
from rankd.models.verification import DownloadStopped
from rankd.telemetry.startup import StartupStep, report_step

T = TypeVar("T")

_THREAD_NAME = "model-download"

# They match in folders, too, such as `1_LogitScore/config.json`.
PATTERNS = ["*.json", "*.jinja", "*.safetensors", "merges.txt", "vocab.txt"]


def download(model: str, revision: str | None, cancelled: threading.Event) -> Path:
    """The model's folder in the hub's cache; files that are there already are not downloaded.

    Args:
        cancelled: when it is set, downloads stop at their next block of bytes.

    Raises:
        BadModel: the model does not exist, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download

    # Its own handler would print each of its warnings a second time, and never as JSON.
    logging.getLogger("huggingface_hub").handlers.clear()
    report_step(StartupStep(f"looking for {model} on the hub"))
    try:
        bars = _progress_bars(f"downloading {model}", cancelled)
        return Path(
            snapshot_download(model, revision=revision, allow_patterns=PATTERNS, tqdm_class=bars)
        )
    except Exception as problem:
        # Errors of the HTTP client, too, which is another one in each release of the hub's.
        raise BadModel(hub_errors.explain(model, revision, problem)) from problem


def _progress_bars(step: str, cancelled: threading.Event) -> Any:
    """A subclass of tqdm that draws nothing, and reports the progress of all its bars.

    The hub's client has one bar for files and, since its 1.0, two for bytes: received and
    written. The slower one counts.
    """
    from tqdm import tqdm

    bars: list[Any] = []
    context = contextvars.copy_context()  # The client's own threads have an empty one.

    class Bar(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "file": io.StringIO(), "disable": False})
            self.miniters, self.mininterval = 0, 0.1
            bars.append(self)

        def update(self, n: float | None = 1) -> bool | None:
            if cancelled.is_set():
                raise DownloadStopped
            return super().update(n)

        def display(self, *_: Any, **__: Any) -> None:
            if bars:  # The first bar displays itself from within its constructor.
                context.copy().run(report_step, _progress(step, bars))

    return Bar


def _progress(step: str, bars: list[Any]) -> StartupStep:
    """The progress of the bar that is furthest behind, in bytes if any bar counts bytes."""
    in_bytes = [bar for bar in bars if bar.unit == "B" and bar.total]
    slowest = min(in_bytes or bars, key=lambda bar: bar.n)
    unit = "B" if in_bytes else "files"
    return StartupStep(step, int(slowest.n), int(slowest.total or 0), unit, then="it is loaded")


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run a function in a daemon thread, which does not keep the process from ending.

    A thread cannot be cancelled, and asyncio waits for its own threads at exit: Ctrl-C during
    a download would seem to do nothing.

    Args:
        work: gets an event that is set when the awaiting task is cancelled.
    """
    cancelled, future = threading.Event(), Future[T]()

    def run() -> None:
        future.set_running_or_notify_cancel()  # From here on `future.cancel` has no effect.
        try:
            future.set_result(work(cancelled))
        except BaseException as problem:
            future.set_exception(problem)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(run,), name=_THREAD_NAME, daemon=True).start()
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        cancelled.set()
        raise


def is_downloading() -> bool:
    """Whether a download still runs, such as a cancelled one that waits for bytes."""
    return any(thread.name == _THREAD_NAME for thread in threading.enumerate())
