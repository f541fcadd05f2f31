"""Judged rankings in BEIR's layout: a corpus, queries, and what is relevant to them.

DIR/corpus.jsonl       {"_id", "title"?, "text"}
DIR/queries.jsonl      {"_id", "text"}
DIR/qrels/test.tsv     query-id, corpus-id, grade; TREC's four columns are understood, too
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from rankd.errors import BadSettings
from rankd.evaluation.jsonl import lines, objects, refuse, text

Qrels = dict[str, dict[str, int]]
"""Of each query, the grades of the documents that someone judged."""


def read_qrels(folder: Path, split: str) -> Qrels:
    """Queries with something relevant; no measure says anything of the others."""
    file = folder / "qrels" / f"{split}.tsv"
    qrels: Qrels = {}
    for number, (place, line) in enumerate(lines(file)):
        columns = line.split("\t") if "\t" in line else line.split()
        if number == 0 and not _is_grade(columns[-1]):
            continue  # BEIR's heading.
        if len(columns) not in (3, 4):
            refuse(place, f"needs query-id, corpus-id and score, and has {len(columns)} columns")
        query, document, grade = columns[0], columns[-2], columns[-1]
        if not _is_grade(grade):
            refuse(place, f"the score must be a whole number, not {grade!r}")
        qrels.setdefault(query, {})[document] = int(grade)
    judged = {query: grades for query, grades in qrels.items() if max(grades.values()) > 0}
    if not judged:
        raise BadSettings(f"{file} judges nothing as relevant")
    return judged


def _is_grade(word: str) -> bool:
    return word.strip().removeprefix("-").isdigit()


def read_queries(folder: Path, qrels: Qrels) -> dict[str, str]:
    """The texts of the judged queries, in the file's order."""
    file = folder / "queries.jsonl"
    queries: dict[str, str] = {}
    for place, row in objects(file):
        query = _id(place, row)
        if query not in qrels:
            continue
        if query in queries:
            refuse(place, f"the id {query!r} stands twice")
        queries[query] = text(place, row, "text")
    if missing := [query for query in qrels if query not in queries]:
        raise BadSettings(f"{file} lacks the judged query {missing[0]!r}{_more(missing)}")
    return queries


def read_corpus(folder: Path, wanted: Collection[str] | None = None) -> dict[str, str]:
    """The texts of documents, title before text, as BEIR joins them.

    Args:
        wanted: ids; all when absent. Others are not kept, so that a large corpus does
            not have to fit into memory.
    """
    file = folder / "corpus.jsonl"
    documents: dict[str, str] = {}
    for place, row in objects(file):
        document = _id(place, row)
        if wanted is not None and document not in wanted:
            continue
        if document in documents:
            refuse(place, f"the id {document!r} stands twice")
        documents[document] = _document(place, row)
    if not documents and not wanted:
        raise BadSettings(f"{file} holds no documents")
    if missing := [one for one in wanted or () if one not in documents]:
        raise BadSettings(f"{file} lacks the candidate {missing[0]!r}{_more(missing)}")
    return documents


def _document(place: str, row: dict[str, Any]) -> str:
    """BEIR's sets have documents without a title, and some without a text."""
    for name in ("title", "text"):
        if not isinstance(row.get(name) or "", str):
            text(place, row, name)
    if "text" not in row:
        refuse(place, "has no 'text'")
    return f"{row.get('title') or ''} {row['text'] or ''}".strip()


def _id(place: str, row: dict[str, Any]) -> str:
    value = row.get("_id")
    return str(value) if type(value) is int else text(place, row, "_id")


def _more(missing: list[str]) -> str:
    return f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
