"""The first stage's candidates: read from a run file, or found with BM25."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from rankd.errors import BadSettings
from rankd.evaluation.jsonl import lines, open_text, refuse

Candidates = dict[str, list[str]]
"""Document ids by query id, best first."""

# Lucene's defaults. For other parameters, give a run file.
BM25_K1, BM25_B = 1.2, 0.75

# Words, and Chinese characters one by one.
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W_]+")


def read_run(file: Path) -> Candidates:
    """Read a TREC run or JSON: highest score first, equal scores in the file's order.

    Raises:
        BadSettings: the file is missing, malformed or empty; names the line.
    """
    with open_text(file) as stream:
        # The file may be gigabytes: read one line to detect the format.
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
    for location, line in lines(file):
        columns = line.split()
        if len(columns) != 6:
            refuse(location, f"a TREC run has six columns, and this line has {len(columns)}")
        query, _, document, _, score, _ = columns
        documents = scores.setdefault(query, {})
        if document in documents:
            refuse(location, f"duplicate document {document!r} for query {query!r}")
        documents[document] = _number(location, score)
    return scores


def _from_json(file: Path) -> dict[str, dict[str, float]]:
    with open_text(file) as stream:
        content = stream.read()
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as problem:
        raise BadSettings(f"{file}:{problem.lineno} is not JSON: {problem.msg}") from None
    for query, documents in value.items():
        if not isinstance(documents, dict):
            refuse(str(file), f"query {query!r} needs an object {{document: score}}")
        for document, score in documents.items():
            documents[document] = _number(f"{file}: query {query!r}, document {document!r}", score)
    return dict(value)


def _number(location: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        refuse(location, f"the score must be a number, not {value!r}")
    return number


def bm25(queries: Mapping[str, str], documents: Mapping[str, str], depth: int) -> Candidates:
    """Find documents with BM25 (Lucene's formula).

    Args:
        depth: maximum number of documents per query; only those that share a word with it.
    """
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)  # It logs every step to stderr.
    index = bm25s.BM25(k1=BM25_K1, b=BM25_B, method="lucene")
    index.index([_words(text) for text in documents.values()], show_progress=False)
    names = list(documents)
    found, scores = index.retrieve(
        [_words(text) for text in queries.values()],
        k=min(depth, len(names)),
        show_progress=False,
    )
    return {
        query: [names[index] for score, index in sorted(rows, key=_by_score) if score > 0]
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
