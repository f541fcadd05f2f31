"""`rankd eval`: score a first stage's candidates, and measure what reranking changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankd.config.settings import Settings
from rankd.errors import BadSettings, SetupError
from rankd.evaluation import first_stage, measures
from rankd.evaluation.dataset import Dataset, read_dataset
from rankd.evaluation.extras import require
from rankd.evaluation.journal import Journal, open_journal
from rankd.evaluation.measures import PerQuery
from rankd.evaluation.options import EvalOptions
from rankd.evaluation.progress import pair_progress
from rankd.evaluation.report import EvalReport, System, to_json, to_markdown, to_text
from rankd.evaluation.scorer import QueryScores, Scorer, ScorerOptions
from rankd.evaluation.scorers import open_scorer
from rankd.evaluation.shadow_lines import about, read_shadow_lines
from rankd.evaluation.statistics import difference, kendall_tau
from rankd.server.progress import await_with_progress

if TYPE_CHECKING:
    from ir_measures import Measure


async def evaluate(settings: Settings, options: EvalOptions) -> int:
    """Run the command; returns the exit code.

    Raises:
        SetupError: an input or an option is missing or wrong; names the file and line.
    """
    require("rankd eval", ir_measures="ir-measures", scipy="scipy")
    if options.shadow_lines is not None:
        return await asyncio.to_thread(_evaluate_shadow, options)
    if options.bm25:
        require("--bm25", bm25s="bm25s")
    wanted = measures.parse(options.measures, options.depth)
    sides = _sides(settings, options)
    dataset = await await_with_progress(asyncio.to_thread(read_dataset, options))
    out = _output_folder(options)
    systems, scores = [], []
    for letter, side in zip("AB", sides, strict=False):
        system, scored = await _evaluate_side(letter, side, dataset, wanted, options, out)
        systems.append(system)
        scores.append(scored)
    if len(systems) == 2 and systems[0].about == systems[1].about:
        raise BadSettings("both sides are the same: nothing to compare")
    _finish(out, _report(options, dataset, wanted, systems, scores), dataset, scores)
    return 0


def _evaluate_shadow(options: EvalOptions) -> int:
    """Judge the two scorings of a shadow's lines; nothing is scored."""
    assert options.shadow_lines is not None
    wanted = measures.parse(options.measures, options.depth)
    found = read_shadow_lines(options)
    scores, systems = (found.first, found.second), []
    for letter, name, scored in zip(
        "AB", ("the server's answers", found.name), scores, strict=True
    ):
        values = _measured(found.dataset, wanted, scored)
        systems.append(System(letter, about(options.shadow_lines, name), values, 0.0, 0, ()))
    report = _report(options, found.dataset, wanted, systems, scores)
    _finish(_output_folder(options), report, found.dataset, scores)
    return 0


def _finish(
    out: Path, report: EvalReport, dataset: Dataset, scores: Sequence[Mapping[str, QueryScores]]
) -> None:
    _write(out, report, dataset, scores)
    print(to_text(report))  # noqa: T201
    print(f"\nreports: {out / 'report.md'}, {out / 'report.json'}")  # noqa: T201


def _sides(settings: Settings, options: EvalOptions) -> list[ScorerOptions]:
    """What is evaluated, and what it is compared with, if anything."""
    given = settings.model_fields_set
    first = _side(
        settings,
        options.url,
        settings.model if "model" in given else None,
        settings.instruction if "instruction" in given else None,
    )
    if not (options.against or options.against_instruction or options.against_url):
        return [first]
    # `--against MODEL` without `--against-url` is a local model, even beside `--url`.
    url = options.against_url or (None if options.against else options.url)
    model = options.against or first.model
    instruction = options.against_instruction or first.instruction
    return [first, _side(settings, url, model, instruction)]


def _side(
    settings: Settings, url: str | None, model: str | None, instruction: str | None
) -> ScorerOptions:
    if url is not None:
        return ScorerOptions(settings, url, instruction, model)
    changed = {"model": model} if model else {}
    return ScorerOptions(settings.model_copy(update=changed), None, instruction)


def _output_folder(options: EvalOptions) -> Path:
    folder = options.out or Path("rankd-eval") / options.folder.resolve().name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadSettings(f"cannot make {folder}: {problem.strerror}") from None
    return folder


async def _evaluate_side(
    letter: str,
    side: ScorerOptions,
    dataset: Dataset,
    wanted: Sequence[Measure],
    options: EvalOptions,
    out: Path,
) -> tuple[System, dict[str, QueryScores]]:
    """Score all candidates with one side, and measure the order that results."""
    async with open_scorer(side) as scorer:
        about = {**scorer.about, "depth": options.depth, "candidates": dataset.digest()}
        sizes = {query: len(documents) for query, documents in dataset.candidates.items()}
        began = time.monotonic()
        with open_journal(out, about, scorer.probe, sizes) as journal:
            await _score(scorer, dataset, journal, options.concurrency)
    values = _measured(dataset, wanted, journal.scores)
    seconds = time.monotonic() - began
    warnings = [scored.warning for scored in journal.scores.values() if scored.warning]
    system = System(letter, about, values, seconds, journal.reused, tuple(warnings))
    return system, journal.scores


def _measured(
    dataset: Dataset, wanted: Sequence[Measure], scores: Mapping[str, QueryScores]
) -> PerQuery:
    rankings = {
        query: _ranked(documents, scores[query]) for query, documents in dataset.with_candidates()
    }
    return measures.compute(wanted, dataset.qrels, rankings)


def _ranked(documents: Sequence[str], scored: QueryScores) -> list[str]:
    """Best first; equal logits keep the order of the first stage."""
    order = sorted(range(len(documents)), key=lambda index: -scored.logits[index])
    return [documents[index] for index in order]


async def _score(scorer: Scorer, dataset: Dataset, journal: Journal, concurrency: int) -> None:
    """Score the queries that the journal lacks, `concurrency` at a time."""
    missing = [query for query, _ in dataset.with_candidates() if query not in journal.scores]
    waiting = iter(missing)
    total = sum(len(documents) for documents in dataset.candidates.values())
    left = sum(len(dataset.candidates[query]) for query in missing)
    with pair_progress(total, total - left) as on_scored:

        async def work() -> None:
            for query in waiting:
                documents = [dataset.documents[name] for name in dataset.candidates[query]]
                journal.append(query, await scorer.score(dataset.queries[query], documents))
                on_scored(len(documents))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work())
        except ExceptionGroup as problems:
            raise _with_progress(problems.exceptions[0], journal) from None


def _with_progress(problem: Exception, journal: Journal) -> Exception:
    """The error, and for a SetupError how many queries need not be scored again."""
    if isinstance(problem, SetupError):
        kept = f"{len(journal.scores):,} queries are kept: the same command goes on from there"
        return type(problem)(f"{problem}\n{kept}")
    return problem


def _report(
    options: EvalOptions,
    dataset: Dataset,
    wanted: Sequence[Measure],
    systems: list[System],
    scores: Sequence[Mapping[str, QueryScores]],
) -> EvalReport:
    before = measures.compute(wanted, dataset.qrels, dataset.candidates)
    stages = [before, *(system.values for system in systems)]
    pairs = [(before, system.values) for system in systems]
    if len(systems) == 2:
        pairs.append((systems[0].values, systems[1].values))
    changes = [
        {
            name: difference(list(first[name].values()), list(second[name].values()))
            for name in before
        }
        for first, second in pairs
    ]
    return EvalReport(
        data=_summary(options, dataset),
        measures=list(before),
        first_stage=before,
        systems=systems,
        gains=changes[: len(systems)],
        change=changes[-1] if len(systems) == 2 else None,
        taus=_taus(dataset, scores) if len(systems) == 2 else {},
        queries={
            query: [{name: stage[name][query] for name in before} for stage in stages]
            for query in dataset.queries
        },
    )


def _summary(options: EvalOptions, dataset: Dataset) -> dict[str, Any]:
    origin = f"BM25, k1 {first_stage.BM25_K1}, b {first_stage.BM25_B}"
    if options.shadow_lines is not None:
        origin = "the order in which clients sent them"
    elif options.run is not None:
        origin = options.run.name
    return {
        "name": options.folder.resolve().name,
        "split": options.split,
        "queries": len(dataset.queries),
        "without_candidates": sum(not found for found in dataset.candidates.values()),
        "pairs": sum(len(found) for found in dataset.candidates.values()),
        "depth": options.depth,
        "first_stage": origin,
    }


def _taus(dataset: Dataset, scores: Sequence[Mapping[str, QueryScores]]) -> dict[str, float | None]:
    first, second = scores
    return {
        query: kendall_tau(first[query].logits, second[query].logits)
        for query, _ in dataset.with_candidates()
    }


def _write(
    out: Path, report: EvalReport, dataset: Dataset, scores: Sequence[Mapping[str, QueryScores]]
) -> None:
    """Write both reports, and each system's order as a TREC run."""
    (out / "report.json").write_bytes(to_json(report))
    (out / "report.md").write_text(to_markdown(report), encoding="utf-8")
    for system, scored in zip(report.systems, scores, strict=True):
        tag = f"rankd-{system.letter}"
        with (out / f"reranked-{system.letter}.trec").open("w", encoding="utf-8") as run:
            for query, documents in dataset.with_candidates():
                logits = dict(zip(documents, scored[query].logits, strict=True))
                for rank, document in enumerate(_ranked(documents, scored[query]), 1):
                    run.write(f"{query} Q0 {document} {rank} {logits[document]!r} {tag}\n")
