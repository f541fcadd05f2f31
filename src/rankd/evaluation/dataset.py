"""The data of `rankd eval`: judged queries, and the candidates that are reranked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import orjson

from rankd.errors import BadSettings
from rankd.evaluation import beir, first_stage
from rankd.evaluation.first_stage import Candidates
from rankd.evaluation.options import EvalOptions
from rankd.telemetry.startup import StartupStep, report_step


@dataclass(frozen=True)
class Dataset:
    """Judged queries and their candidates.

    Attributes:
        queries: text by query id.
        documents: text by document id; the candidates only.
        qrels: judgments.
        candidates: at most `--depth` per query, best first; empty if the first stage found
            none.
    """

    queries: dict[str, str]
    documents: dict[str, str]
    qrels: beir.Qrels
    candidates: Candidates

    def digest(self) -> str:
        """Changes with the queries, the candidates, their texts and their order."""
        digest = hashlib.sha256()
        for query, documents in self.candidates.items():
            texts = [self.documents[document] for document in documents]
            digest.update(orjson.dumps([query, self.queries[query], documents, texts]))
        return digest.hexdigest()[:16]

    def with_candidates(self) -> Iterator[tuple[str, list[str]]]:
        """The queries that have candidates, and these."""
        return ((query, documents) for query, documents in self.candidates.items() if documents)


def read_dataset(options: EvalOptions) -> Dataset:
    """Read the folder, and read or compute the first stage's candidates.

    Raises:
        BadSettings: a file is missing or malformed; names the file and line.
    """
    folder = options.folder
    if not folder.is_dir():
        raise BadSettings(
            f"{folder} is not a folder; DIR holds corpus.jsonl, queries.jsonl and qrels/"
        )
    qrels = beir.read_qrels(folder, options.split)
    queries = beir.read_queries(folder, qrels)
    if options.queries is not None:
        queries = dict(list(queries.items())[: options.queries])
        qrels = {query: qrels[query] for query in queries}
    report_step(StartupStep(f"reading {folder / 'corpus.jsonl'}"))
    if options.run is None:
        corpus = beir.read_corpus(folder)
        report_step(StartupStep(f"finding candidates for {len(queries):,} queries with BM25"))
        # One more, in case the query itself is among them.
        depth = options.depth + options.ignore_identical_ids
        candidates = _limited(queries, first_stage.bm25(queries, corpus, depth), options)
        used = {document for documents in candidates.values() for document in documents}
        return Dataset(queries, {name: corpus[name] for name in used}, qrels, candidates)
    run = first_stage.read_run(options.run)
    if not any(query in run for query in queries):
        raise BadSettings(f"{options.run} holds candidates for none of the judged queries")
    candidates = _limited(queries, run, options)
    used = {document for documents in candidates.values() for document in documents}
    return Dataset(queries, beir.read_corpus(folder, used), qrels, candidates)


def _limited(queries: dict[str, str], ranking: Candidates, options: EvalOptions) -> Candidates:
    return {query: _candidates(query, ranking.get(query, []), options) for query in queries}


def _candidates(query: str, documents: Sequence[str], options: EvalOptions) -> list[str]:
    kept = [
        document
        for document in documents
        if not (options.ignore_identical_ids and document == query)
    ]
    return kept[: options.depth]
