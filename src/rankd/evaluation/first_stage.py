"""What is reranked: the candidates of a first stage, out of a file or of BM25."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from rankd.errors import BadSettings
from rankd.evaluation.jsonl import lines, opened, refuse

Candidates = dict[str, list[str]]
"""Of each query, ids of documents, best first."""

# Lucene's own choice; anyone can put another BM25 into a run file.
BM25_K1, BM25_B = 1.2, 0.75

# Words, and Chinese characters one by one.
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W_]+")


def read_run(file: Path) -> Candidates:
    """A TREC run or JSON, highest score first; equal scores keep the file's order."""
    with opened(file) as stream:
        # Not more than one line of what may be gigabytes.
        start = next((line for line in stream if line.strip()), "").lstrip()
    scores = _from_json(file) if start.startswith("{") else _from_trec(file)
    if not scores:
        raise BadSettings(f"{file} holds no candidates")
    return {
        query: sorted(documents, key=lambda document: -documents[document])
        for query, documents in scores.items()
    }


def _from_trec(file: Path) -> dict[str, dict[str, float]]:
    scores: dict[str, dict[str, float]] = {}
    for place, line in lines(file):
        columns = line.split()
        if len(columns) != 6:
            refuse(place, f"a TREC run has six columns, and this line {len(columns)}")
        query, _, document, _, score, _ = columns
        found = scores.setdefault(query, {})
        if document in found:
            refuse(place, f"document {document!r} stands twice for query {query!r}")
        found[document] = _number(place, score)
    return scores


def _from_json(file: Path) -> dict[str, dict[str, float]]:
    with opened(file) as stream:
        content = stream.read()
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as problem:
        raise BadSettings(f"{file}:{problem.lineno} is not JSON: {problem.msg}") from None
    for query, documents in value.items():
        if not isinstance(documents, dict):
            refuse(str(file), f"query {query!r} needs an object of documents and scores")
        for document, score in documents.items():
            documents[document] = _number(f"{file}: query {query!r}, document {document!r}", score)
    return dict(value)


def _number(place: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        refuse(place, f"the score must be a number, not {value!r}")
    return number


def bm25(queries: Mapping[str, str], documents: Mapping[str, str], depth: int) -> Candidates:
    """The documents that share a word with each query, by Lucene's formula."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # It tells of every step, on stderr.
    index = bm25s.BM25(k1=BM25_K1, b=BM25_B, method="lucene")
    index.index([_words(text) for text in documents.values()], show_progress=False)
    names = list(documents)
    found, scores = index.retrieve(
        [_words(text) for text in queries.values()],
        k=min(depth, len(names)),
        show_progress=False,
    )
    return {
        query: [names[place] for score, place in sorted(rows, key=_by_score) if score > 0]
        for query, rows in zip(
            queries,
            (zip(s, f, strict=True) for s, f in zip(scores, found, strict=True)),
            strict=True,
        )
    }


def _by_score(row: tuple[float, int]) -> tuple[float, int]:
    """Best first; equal scores in the order of the corpus."""
    return -row[0], row[1]


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
