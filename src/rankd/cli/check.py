"""`rankd check`: scores known pairs, and reports whether the scores are right."""

from __future__ import annotations

import argparse
import sys

from rankd import __version__
from rankd.cli.common import load_quiet_settings, write_line
from rankd.cli.exactness import compare_with_float32, sentence
from rankd.cli.replica_report import ReplicaReport, compare_replicas, difference
from rankd.cli.report import RIGHT, CheckReport, ExactnessReport
from rankd.config.settings import Settings
from rankd.errors import RankError, SetupError
from rankd.models.checkpoint import Checkpoint
from rankd.ranking import self_check
from rankd.ranking.ranker import Ranker
from rankd.ranking.self_check import Outcome
from rankd.server.app import open_ranker
from rankd.server.progress import show_progress
from rankd.telemetry.terminal import styled, use_utf8


async def run(options: argparse.Namespace) -> int:
    """Returns 0 if every known pair has the right score, else 1."""
    return await (_check_as_json(options) if options.json else _check(options))


async def _check(options: argparse.Namespace) -> int:
    found = await _scored(load_quiet_settings(options))
    checkpoint, ranker, outcomes, exactness, replicas = found
    info = ranker.engine.info
    write_line(f"model   {checkpoint.name}, revision {info.revision}")
    write_line(f"engine  {info.summary}, {info.max_tokens} tokens a pair")
    write_line(f"exact   {sentence(info.dtype, exactness)}")
    write_line(f"rankd   {__version__}")
    for note in ranker.encoder.notes:
        write_line(note)
    write_line("")
    write_line(self_check.table(outcomes))
    for replica in replicas:
        write_line(replica.line)
    failure = self_check.failure_message(outcomes) or difference(replicas)
    write_line("\n" + styled(failure or RIGHT, "red" if failure else "green", sys.stdout))
    if info.device == "npu":
        write_line("rankd was not run on Ascend hardware yet: please report these lines.")
    return 1 if failure else 0


async def _check_as_json(options: argparse.Namespace) -> int:
    """Print one JSON object, also if the settings are wrong or the model cannot be loaded."""
    try:
        report = await _report(options)
    except SetupError as problem:
        report = CheckReport.of_failure(str(problem), problem.exit_code)
    except RankError as problem:
        report = CheckReport.of_failure(problem.message, 1)
    use_utf8()
    write_line(report.model_dump_json(indent=2))
    return report.exit_code


async def _report(options: argparse.Namespace) -> CheckReport:
    return CheckReport.of(*await _scored(load_quiet_settings(options)))


async def _scored(
    settings: Settings,
) -> tuple[Checkpoint, Ranker, list[Outcome], ExactnessReport, list[ReplicaReport]]:
    """The known pairs' logits, how far they are from those in float32, and each replica's."""
    async with show_progress(open_ranker(settings)) as (checkpoint, ranker):
        outcomes = await self_check.score_known_pairs(ranker)
        replicas = await compare_replicas(ranker)
    info = ranker.engine.info
    exactness = await compare_with_float32(settings, checkpoint, info, outcomes)
    return checkpoint, ranker, outcomes, exactness, replicas
