"""How far the logits of the known pairs are from those in float32."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rankd.cli.report import ExactnessReport
from rankd.config.settings import Settings
from rankd.engines.base import EngineInfo
from rankd.engines.devices import free_memory
from rankd.errors import RankError, SetupError
from rankd.models.checkpoint import Checkpoint
from rankd.ranking import self_check
from rankd.ranking.self_check import Outcome
from rankd.server.app import open_ranker
from rankd.server.progress import show_progress

# Bytes that a process needs besides its weights.
_OVERHEAD = 1 << 30


async def compare_with_float32(
    settings: Settings, checkpoint: Checkpoint, info: EngineInfo, outcomes: Sequence[Outcome]
) -> ExactnessReport:
    """Score the known pairs again, with the native engine in float32 on the CPU.

    The engine that scored `outcomes` must be closed, because both may not fit in memory.
    """
    if info.name == "fake":
        return ExactnessReport(problem="the fake engine's scores mean nothing")
    if info.dtype == "float32":
        return ExactnessReport(difference=0, spread=_spread(outcomes))
    needed = _OVERHEAD + 4 * sum(math.prod(one.shape) for one in checkpoint.tensors.values())
    free = free_memory()
    if free is not None and free < needed:
        return ExactnessReport(
            problem=f"float32 needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free"
        )
    exact = {"engine": "native", "device": "cpu", "dtype": "float32", "cache_redis": None}
    try:
        async with show_progress(open_ranker(settings.model_copy(update=exact))) as (_, ranker):
            reference = await self_check.score_known_pairs(ranker)
    except (SetupError, RankError) as problem:
        return ExactnessReport(problem=str(problem))
    return ExactnessReport(
        difference=max(map(_difference, outcomes, reference)), spread=_spread(reference)
    )


def _difference(one: Outcome, other: Outcome) -> float:
    return max(abs(one.right - other.right), abs(one.wrong - other.wrong))


def _spread(outcomes: Sequence[Outcome]) -> float:
    logits = [logit for outcome in outcomes for logit in (outcome.right, outcome.wrong)]
    return max(logits) - min(logits)


def sentence(dtype: str, report: ExactnessReport) -> str:
    """The report for people."""
    if report.problem:
        return f"{dtype} is not compared with float32: {report.problem}"
    if dtype == "float32":
        return "float32, the exact format"
    return (
        f"logits differ by at most {report.difference:.2g} nats from float32; "
        f"they spread over {report.spread:.3g}"
    )
