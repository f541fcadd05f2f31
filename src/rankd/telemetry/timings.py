"""How long each stage of a ranking took.

The header `Server-Timing`, the metric `rankd_stage_duration_seconds` and trace spans use it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

from rankd.telemetry import metrics
from rankd.types import RankResult

StageName = Literal["parse", "tokenise", "cache", "queue", "engine", "render"]

# Created at import, so that /metrics has every stage from the start.
_COUNTS = {name: metrics.STAGE_SECONDS.labels(name) for name in get_args(StageName)}


class Stage(NamedTuple):
    """One stage of a ranking.

    Attributes:
        began, ended: by `time.perf_counter()`.
        failed: it ended with an error or was cancelled.
    """

    name: StageName
    began: float
    ended: float
    failed: bool = False


@dataclass
class StageTimings:
    """The stages of one ranking, with the attributes of its trace spans.

    Attributes:
        counted: whether its stages are counted in /metrics.
        preset: as in the label of `rankd_instruction_requests_total`.
        documents: number of documents that were sent.
        ranking: the result; None before, and after a failure.
    """

    counted: bool = False
    dialect: str = ""
    preset: str = ""
    documents: int = 0
    ranking: RankResult | None = None
    stages: list[Stage] = field(default_factory=list)

    @contextmanager
    def stage(self, name: StageName) -> Iterator[None]:
        """Measure the block as a stage."""
        began = time.perf_counter()
        failed = True
        try:
            yield
            failed = False
        finally:
            ended = time.perf_counter()
            self.stages.append(Stage(name, began, ended, failed))
            if self.counted:
                _COUNTS[name].observe(ended - began)

    @contextmanager
    def scoring(self) -> Iterator[Callable[[], None]]:
        """This block is the stage `queue` until the yielded function is called, then `engine`.

        Also `queue`: the wait for pairs that another request computes.
        """
        began = time.perf_counter()
        computing: float | None = None
        failed = True

        def start() -> None:
            nonlocal computing
            if computing is None:
                computing = time.perf_counter()

        try:
            yield start
            failed = False
        finally:
            ended = time.perf_counter()
            if computing is None:
                self.add("queue", began, ended, failed=failed)
            else:
                self.add("queue", began, computing)
                self.add("engine", computing, ended, failed=failed)

    def add(self, name: StageName, began: float, ended: float, *, failed: bool = False) -> None:
        self.stages.append(Stage(name, began, ended, failed))
        if self.counted:
            _COUNTS[name].observe(ended - began)

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, in the order of their beginning."""
        seconds: dict[str, float] = {}
        for stage in self.stages:
            seconds[stage.name] = seconds.get(stage.name, 0.0) + stage.ended - stage.began
        return seconds


def server_timing(timelines: Iterable[StageTimings], total: float) -> str:
    """The value of the header `Server-Timing`, in milliseconds.

    The rankings of one request run in parallel: the longest of each stage counts.

    Args:
        total: seconds from the request's first byte until now.
    """
    longest: dict[str, float] = {}
    for timeline in timelines:
        for name, seconds in timeline.seconds().items():
            longest[name] = max(seconds, longest.get(name, 0.0))
    rows = (*longest.items(), ("total", total))
    return ", ".join([f"{name};dur={seconds * 1000:.2f}" for name, seconds in rows])
