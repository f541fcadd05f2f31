"""`rankd eval`: a first stage, and what reranking makes of it."""

from __future__ import annotations

import asyncio
import hashlib
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from tqdm import tqdm

from rankd.config.settings import Settings
from rankd.errors import BadSettings, SetupError
from rankd.evaluation import beir, first_stage, measures
from rankd.evaluation.first_stage import Candidates
from rankd.evaluation.journal import Journal, open_journal
from rankd.evaluation.options import EvalOptions
from rankd.evaluation.report import EvalReport, System, markdown, said, to_json
from rankd.evaluation.scorers import QueryScores, Scorer, ScorerOptions, open_scorer
from rankd.evaluation.statistics import difference, kendall_tau

if TYPE_CHECKING:
    from ir_measures import Measure


@dataclass(frozen=True)
class Data:
    """Judged queries and their candidates.

    Attributes:
        candidates: of every query at most `--depth`, best first; none where the first
            stage found none.
    """

    queries: dict[str, str]
    documents: dict[str, str]
    qrels: beir.Qrels
    candidates: Candidates

    def digest(self) -> str:
        """Changes with any query, any candidate, their texts and their order."""
        hashed = hashlib.sha256()
        for query, documents in self.candidates.items():
            texts = [self.documents[document] for document in documents]
            hashed.update(orjson.dumps([query, self.queries[query], documents, texts]))
        return hashed.hexdigest()[:16]


async def evaluate(settings: Settings, options: EvalOptions) -> int:
    """Score, judge, report.

    Raises:
        SetupError: what is missing or wrong, with file and line.
    """
    wanted = _measures(options)
    sides = _sides(settings, options)
    data = await asyncio.to_thread(_read, options)
    out = options.out or Path("rankd-eval") / options.folder.resolve().name
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise BadSettings(f"cannot make {out}: {problem.strerror}") from None
    systems, scores = [], []
    for letter, side in zip("AB", sides, strict=False):
        system, scored = await _system(letter, side, data, wanted, options, out)
        systems.append(system)
        scores.append(scored)
    if len(systems) == 2 and systems[0].about == systems[1].about:
        raise BadSettings("both sides are the same: nothing to compare")
    report = _report(options, data, wanted, systems, scores)
    _write(out, report, data, scores)
    print(said(report))  # noqa: T201
    print(f"\nreports: {out / 'report.md'}, {out / 'report.json'}")  # noqa: T201
    return 0


def _measures(options: EvalOptions) -> list[Measure]:
    try:
        if options.bm25:
            import bm25s  # noqa: F401
        import scipy  # noqa: F401

        return measures.chosen(options.measures, options.depth)
    except ModuleNotFoundError as problem:
        raise BadSettings(f"rankd eval needs {problem.name}: pip install 'rankd[eval]'") from None


def _sides(settings: Settings, options: EvalOptions) -> list[ScorerOptions]:
    """What is evaluated, and what it is compared with when that was asked for."""
    given = settings.model_fields_set
    first = _side(
        settings,
        options.url,
        settings.model if "model" in given else None,
        settings.instruction if "instruction" in given else None,
    )
    if not (options.against or options.against_instruction or options.against_url):
        return [first]
    # Another model without another server is a local one.
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


def _read(options: EvalOptions) -> Data:
    folder = options.folder
    if not folder.is_dir():
        raise BadSettings(f"{folder} is no folder; DIR holds corpus.jsonl, queries.jsonl, qrels/")
    qrels = beir.read_qrels(folder, options.split)
    queries = beir.read_queries(folder, qrels)
    if options.queries is not None:
        queries = dict(list(queries.items())[: options.queries])
        qrels = {query: qrels[query] for query in queries}
    # One more, in case the query itself is among them.
    depth = options.depth + options.ignore_identical_ids
    if options.run is None:
        documents = beir.read_corpus(folder)
        found = first_stage.bm25(queries, documents, depth)
    else:
        found = first_stage.read_run(options.run)
        if not any(query in found for query in queries):
            raise BadSettings(f"{options.run} holds candidates for none of the judged queries")
    candidates = {query: _candidates(query, found.get(query, []), options) for query in queries}
    wanted = {document for some in candidates.values() for document in some}
    if options.run is not None:
        documents = beir.read_corpus(folder, wanted)
    return Data(queries, {one: documents[one] for one in wanted}, qrels, candidates)


def _candidates(query: str, found: Sequence[str], options: EvalOptions) -> list[str]:
    kept = [one for one in found if not (options.ignore_identical_ids and one == query)]
    return kept[: options.depth]


async def _system(
    letter: str,
    side: ScorerOptions,
    data: Data,
    wanted: Sequence[Measure],
    options: EvalOptions,
    out: Path,
) -> tuple[System, dict[str, QueryScores]]:
    """Score all candidates with one side, and judge the order they get."""
    async with open_scorer(side) as scorer:
        about = {**scorer.about, "depth": options.depth, "candidates": data.digest()}
        sizes = {query: len(documents) for query, documents in data.candidates.items()}
        began = time.monotonic()
        with open_journal(out, about, scorer.probe, sizes) as journal:
            await _score(scorer, data, journal, options.concurrency)
    rankings = {
        query: _ranked(documents, journal.known[query]) for query, documents in _asked(data)
    }
    values = measures.judge(wanted, data.qrels, rankings)
    seconds = time.monotonic() - began
    warnings = [scored.warning for scored in journal.known.values() if scored.warning]
    system = System(letter, about, values, seconds, journal.reused, tuple(warnings))
    return system, journal.known


def _asked(data: Data) -> Iterator[tuple[str, list[str]]]:
    """Queries that have candidates."""
    return ((query, documents) for query, documents in data.candidates.items() if documents)


def _ranked(documents: Sequence[str], scored: QueryScores) -> list[str]:
    """Best first; equal logits keep the order of the first stage."""
    order = sorted(range(len(documents)), key=lambda place: -scored.logits[place])
    return [documents[place] for place in order]


async def _score(scorer: Scorer, data: Data, journal: Journal, concurrency: int) -> None:
    """What the journal lacks, some queries at a time."""
    missing = [query for query, _ in _asked(data) if query not in journal.known]
    waiting = iter(missing)
    total = sum(len(documents) for documents in data.candidates.values())
    left = sum(len(data.candidates[query]) for query in missing)
    watched = sys.stderr.isatty()
    with tqdm(total=total, initial=total - left, unit="pair", disable=not watched) as bar:

        async def work() -> None:
            for query in waiting:
                documents = [data.documents[one] for one in data.candidates[query]]
                journal.keep(query, await scorer.score(data.queries[query], documents))
                bar.update(len(documents))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(work())
        except ExceptionGroup as problems:
            raise _first(problems, journal) from None


def _first(problems: ExceptionGroup[Exception], journal: Journal) -> Exception:
    problem = problems.exceptions[0]
    if isinstance(problem, SetupError):
        kept = f"{len(journal.known):,} queries are kept: the same command goes on from there"
        return type(problem)(f"{problem}\n{kept}")
    return problem


def _report(
    options: EvalOptions,
    data: Data,
    wanted: Sequence[Measure],
    systems: list[System],
    scores: Sequence[Mapping[str, QueryScores]],
) -> EvalReport:
    before = measures.judge(wanted, data.qrels, data.candidates)
    stages = [before, *(system.values for system in systems)]
    pairs = [(before, system.values) for system in systems]
    if len(systems) == 2:
        pairs.append((systems[0].values, systems[1].values))
    changes = [
        {name: difference(list(one[name].values()), list(other[name].values())) for name in before}
        for one, other in pairs
    ]
    return EvalReport(
        data=_about(options, data),
        measures=list(before),
        first_stage=before,
        systems=systems,
        gains=changes[: len(systems)],
        change=changes[-1] if len(systems) == 2 else None,
        taus=_taus(data, scores) if len(systems) == 2 else {},
        queries={
            query: [{name: stage[name][query] for name in before} for stage in stages]
            for query in data.queries
        },
    )


def _about(options: EvalOptions, data: Data) -> dict[str, Any]:
    bm25 = f"BM25, k1 {first_stage.BM25_K1}, b {first_stage.BM25_B}"
    return {
        "name": options.folder.resolve().name,
        "split": options.split,
        "queries": len(data.queries),
        "without_candidates": sum(not some for some in data.candidates.values()),
        "pairs": sum(len(some) for some in data.candidates.values()),
        "depth": options.depth,
        "first_stage": bm25 if options.run is None else options.run.name,
    }


def _taus(data: Data, scores: Sequence[Mapping[str, QueryScores]]) -> dict[str, float | None]:
    one, other = scores
    return {query: kendall_tau(one[query].logits, other[query].logits) for query, _ in _asked(data)}


def _write(
    out: Path, report: EvalReport, data: Data, scores: Sequence[Mapping[str, QueryScores]]
) -> None:
    """Both reports, and each system's order as a TREC run."""
    (out / "report.json").write_bytes(to_json(report))
    (out / "report.md").write_text(markdown(report), encoding="utf-8")
    for system, scored in zip(report.systems, scores, strict=True):
        tag = f"rankd-{system.letter}"
        with (out / f"reranked-{system.letter}.trec").open("w", encoding="utf-8") as run:
            for query, documents in _asked(data):
                logits = dict(zip(documents, scored[query].logits, strict=True))
                for rank, document in enumerate(_ranked(documents, scored[query]), 1):
                    run.write(f"{query} Q0 {document} {rank} {logits[document]!r} {tag}\n")
