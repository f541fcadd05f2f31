"""Shows how many pairs are scored: a bar on a terminal, else a line every ten seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from rankd.server.progress import sentence
from rankd.telemetry.startup import StartupStep
from rankd.telemetry.terminal import is_terminal

# Seconds between two lines without a terminal.
_LINE_INTERVAL = 10.0


@contextmanager
def pair_progress(
    total: int, done: int = 0, interval: float = _LINE_INTERVAL
) -> Iterator[Callable[[int], object]]:
    """Yields a function that takes the number of pairs that were scored now.

    Args:
        done: pairs that an earlier command has scored.
    """
    if is_terminal(sys.stderr):
        with tqdm(total=total, initial=done, unit="pair") as bar:
            yield bar.update
        return
    began = shown = time.monotonic()
    now_done = done

    def update(pairs: int) -> None:
        nonlocal now_done, shown
        now_done += pairs
        now = time.monotonic()
        if now - shown >= interval:
            shown = now
            step = StartupStep("scoring", now_done, total, "pairs")
            print(f"rankd: {sentence(step, now - began, done)}", file=sys.stderr)  # noqa: T201

    yield update
