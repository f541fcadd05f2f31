"""Reads the lines that shadow scoring writes, and joins them with judgments by digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from rankd.errors import BadSettings
from rankd.evaluation import beir
from rankd.evaluation.dataset import Dataset
from rankd.evaluation.jsonl import objects, refuse
from rankd.evaluation.options import EvalOptions
from rankd.evaluation.scorer import QueryScores
from rankd.ranking.shadow_log import digest_of


@dataclass(frozen=True)
class ShadowLines:
    """The comparisons of judged queries.

    Attributes:
        name: of the shadow.
        dataset: the queries; their candidates are the documents that clients sent, in that order.
        first, second: the scores of the answers and of the shadow, by query.
    """

    name: str
    dataset: Dataset
    first: dict[str, QueryScores]
    second: dict[str, QueryScores]


def read_shadow_lines(options: EvalOptions) -> ShadowLines:
    """Read `--shadow-lines` and the judgments; of several lines of one query, the last one counts.

    Raises:
        BadSettings: a line is malformed, the lines are of several shadows, or none of them has
            a judged query.
    """
    assert options.shadow_lines is not None
    qrels = beir.read_qrels(options.folder, options.split)
    queries = beir.read_queries(options.folder, qrels)
    corpus = beir.read_corpus(options.folder)
    query_ids = {digest_of(text): name for name, text in queries.items()}
    document_ids = {digest_of(text): name for name, text in corpus.items()}
    names: set[str] = set()
    found: dict[str, dict[str, Any]] = {}
    for location, row in objects(options.shadow_lines):
        _check(location, row)
        names.add(row["shadow"])
        of = digest_of if row.get("texts") else str
        if query := query_ids.get(of(row["query"])):
            # A document that is not in the corpus is not judged either.
            documents = [document_ids.get(of(one), f"?{of(one)}") for one in row["documents"]]
            found[query] = {**row, "documents": documents}
    if len(names) > 1:
        several = ", ".join(sorted(names))
        raise BadSettings(
            f"{options.shadow_lines} has lines of several shadows: {several}; give each its own log"
        )
    if not found:
        raise BadSettings(
            f"{options.shadow_lines} has none of the judged queries of {options.folder}; texts "
            "must be equal to the last character"
        )
    return _joined(next(iter(names)), found, queries, qrels)


def _joined(
    name: str,
    found: Mapping[str, Mapping[str, Any]],
    queries: Mapping[str, str],
    qrels: beir.Qrels,
) -> ShadowLines:
    judged = {query: queries[query] for query in queries if query in found}
    dataset = Dataset(
        judged,
        {document: "" for row in found.values() for document in row["documents"]},
        {query: qrels[query] for query in judged},
        {query: list(found[query]["documents"]) for query in judged},
    )

    def scores(field: str) -> dict[str, QueryScores]:
        return {query: QueryScores(found[query][field]) for query in judged}

    return ShadowLines(name, dataset, scores("logits"), scores("shadow_logits"))


def _check(location: str, row: Mapping[str, Any]) -> None:
    """Raises `BadSettings` unless a line has the fields that are read here."""
    for name in ("shadow", "query"):
        if not isinstance(row.get(name), str):
            refuse(location, f"has no {name!r}: lines of a [[shadow]] with log = … are expected")
    documents = row.get("documents")
    if not _is_list(documents, str):
        refuse(location, "has no list of documents")
    for name in ("logits", "shadow_logits"):
        logits = row.get(name)
        if not _is_list(logits, int | float) or len(logits) != len(documents):
            refuse(location, f"{name!r} must have a number for each document")


def _is_list(value: object, of: Any) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, list) and all(isinstance(one, of) for one in value)


def about(file: Path, name: str) -> dict[str, Any]:
    """What a report says of a scoring that was read from lines."""
    return {"model": name, "url": str(file), "instruction": None}
