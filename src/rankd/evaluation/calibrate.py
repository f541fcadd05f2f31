"""`rankd calibrate`: score judged pairs, choose thresholds, measure reliability, write settings."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from rankd.config.settings import Settings
from rankd.errors import BadSettings
from rankd.evaluation import calibration, calibration_report, cross_validation, thresholds
from rankd.evaluation.calibration import CalibrationResult
from rankd.evaluation.calibration_settings import to_table, to_toml
from rankd.evaluation.extras import require
from rankd.evaluation.judgments import JudgedGroup, read_pairs
from rankd.evaluation.options import CalibrateOptions
from rankd.evaluation.progress import pair_progress
from rankd.evaluation.scorer import Scorer, ScorerOptions
from rankd.evaluation.scorers import open_scorer
from rankd.types import sigmoid


async def calibrate(settings: Settings, options: CalibrateOptions) -> int:
    """Run the command; returns the exit code, 1 if a wanted precision cannot be reached.

    Raises:
        SetupError: an input or an option is missing or wrong; names the file and line.
    """
    require("rankd calibrate", sklearn="scikit-learn")
    if options.picture:
        require("--picture", matplotlib="matplotlib")
    scorer_options = _scorer_options(settings, options)
    async with open_scorer(scorer_options) as scorer:
        about = scorer.about
        # A checkpoint may have an instruction of its own. That of a server is unknown.
        own = scorer_options.instruction if options.url else about["instruction"]
        groups = await asyncio.to_thread(
            read_pairs, options.file, settings, own=own, min_grade=options.relevant_from
        )
        logits = await _score(scorer, groups, options.concurrency)
    results = [
        _result(group, scores, options) for group, scores in zip(groups, logits, strict=True)
    ]
    print(calibration_report.to_text(about, results, options))  # noqa: T201
    _write_files(about, results, options, to_toml(about, results, own))
    return 0 if all(result.threshold for result in results) else 1


def _scorer_options(settings: Settings, options: CalibrateOptions) -> ScorerOptions:
    given = settings.model_fields_set
    return ScorerOptions(
        settings,
        options.url,
        settings.instruction if "instruction" in given else None,
        settings.model if options.url and "model" in given else None,
    )


async def _score(
    scorer: Scorer, groups: Sequence[JudgedGroup], concurrency: int
) -> list[list[float]]:
    """The logits of each group's pairs; the documents of a query are scored together."""
    logits = [[0.0] * len(group.pairs) for group in groups]
    indices_by_query: dict[tuple[int, str], list[int]] = {}
    for number, group in enumerate(groups):
        for index, pair in enumerate(group.pairs):
            indices_by_query.setdefault((number, pair.query), []).append(index)
    waiting = iter(indices_by_query.items())
    total = sum(len(group.pairs) for group in groups)
    truncated_queries = 0
    with pair_progress(total) as on_scored:

        async def work() -> None:
            nonlocal truncated_queries
            for (number, query), indices in waiting:
                group = groups[number]
                documents = [group.pairs[index].document for index in indices]
                scored = await scorer.score(query, documents, group.instruction)
                for index, logit in zip(indices, scored.logits, strict=True):
                    logits[number][index] = logit
                truncated_queries += scored.warning is not None
                on_scored(len(indices))

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(concurrency):
                    tasks.create_task(work())
        except ExceptionGroup as problems:
            raise problems.exceptions[0] from None
    if truncated_queries:
        warning = f"rankd: documents of {truncated_queries} queries were truncated"
        print(warning, file=sys.stderr)  # noqa: T201
    return logits


def _result(
    group: JudgedGroup, logits: Sequence[float], options: CalibrateOptions
) -> CalibrationResult:
    relevant, bins = group.relevant, options.bins
    choose = thresholds.at_precision(options.precision) if options.precision else thresholds.best_f1
    parts = cross_validation.folds([pair.query for pair in group.pairs], relevant)
    held_out = scaled = None
    if parts:
        held_out = cross_validation.held_out_threshold(choose, logits, relevant, parts)
    if parts and options.platt:
        probabilities = cross_validation.held_out_platt(logits, relevant, parts)
        scaled = calibration.reliability(probabilities, relevant, bins)
    return CalibrationResult(
        group=group,
        logits=logits,
        threshold=choose(logits, relevant),
        held_out=held_out,
        auc=calibration.auc(logits, relevant),
        raw=calibration.reliability([sigmoid(logit) for logit in logits], relevant, bins),
        platt=calibration.fit_platt(logits, relevant) if options.platt else None,
        scaled=scaled,
        separated=calibration.is_separated(logits, relevant),
    )


def _write_files(
    about: calibration_report.About,
    results: Sequence[CalibrationResult],
    options: CalibrateOptions,
    settings: str,
) -> None:
    """Write the files that the options name; without `--write`, print the settings."""
    if options.json:
        _write(options.json, calibration_report.to_json(about, results, options))
    if options.table:
        digest = hashlib.sha256(Path(options.file).read_bytes()).hexdigest()
        _write(options.table, to_table(about, results, options.about, digest).encode())
    if options.picture:
        from rankd.evaluation.plot import draw

        try:
            draw(options.picture, results)
        except OSError as problem:
            raise _unwritable(options.picture, problem) from None
        print(f"\npicture: {options.picture}")  # noqa: T201
    if options.write:
        _write(options.write, settings.encode())
        line = f"settings: {options.write}, for `rankd serve --config {options.write}`"
        print(f"\n{line}")  # noqa: T201
    else:
        print(f"\n{settings}")  # noqa: T201


def _write(file: Path, content: bytes) -> None:
    try:
        file.write_bytes(content)
    except OSError as problem:
        raise _unwritable(file, problem) from None


def _unwritable(file: Path, problem: OSError) -> BadSettings:
    return BadSettings(f"cannot write {file}: {problem.strerror}")
