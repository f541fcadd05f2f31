"""Reads judged rankings in BEIR's layout: a corpus, queries and judgments.

DIR/corpus.jsonl       {"_id", "title"?, "text"}
DIR/queries.jsonl      {"_id", "text"}
DIR/qrels/test.tsv     query-id, corpus-id, grade by tabs; or TREC's four columns
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from rankd.errors import BadSettings
from rankd.evaluation.jsonl import lines, objects, refuse, text_field

Qrels = dict[str, dict[str, int]]
"""The grades of the judged documents, by query id and document id."""


def read_qrels(folder: Path, split: str) -> Qrels:
    """The judgments of all queries that have a relevant document.

    Raises:
        BadSettings: the file is missing or malformed, or no document is relevant.
    """
    file = folder / "qrels" / f"{split}.tsv"
    qrels: Qrels = {}
    for number, (location, line) in enumerate(lines(file)):
        columns = line.split("\t") if "\t" in line else line.split()
        if number == 0 and not _is_grade(columns[-1]):
            continue  # BEIR's header line.
        if len(columns) not in (3, 4):
            refuse(location, f"needs query-id, corpus-id and score, and has {len(columns)} columns")
        query, document, grade = columns[0], columns[-2], columns[-1]
        if not _is_grade(grade):
            refuse(location, f"the score must be a whole number, not {grade!r}")
        qrels.setdefault(query, {})[document] = int(grade)
    judged = {query: grades for query, grades in qrels.items() if max(grades.values()) > 0}
    if not judged:
        raise BadSettings(f"{file} judges no document as relevant")
    return judged


def _is_grade(word: str) -> bool:
    return word.strip().removeprefix("-").isdigit()


def read_queries(folder: Path, qrels: Qrels) -> dict[str, str]:
    """The texts of the judged queries by id, in the file's order.

    Raises:
        BadSettings: the file is missing or malformed, or lacks a judged query.
    """
    file = folder / "queries.jsonl"
    queries: dict[str, str] = {}
    for location, row in objects(file):
        query = _id(location, row)
        if query not in qrels:
            continue
        if query in queries:
            refuse(location, f"duplicate id {query!r}")
        queries[query] = text_field(location, row, "text")
    if missing := [query for query in qrels if query not in queries]:
        raise BadSettings(f"{file} lacks the judged query {missing[0]!r}{_more(missing)}")
    return queries


def read_corpus(folder: Path, wanted: Collection[str] | None = None) -> dict[str, str]:
    """The texts of documents by id, title and text joined as BEIR does.

    Args:
        wanted: ids to keep, so that a large corpus need not fit into memory; None keeps all.

    Raises:
        BadSettings: the file is missing, malformed or empty, or lacks a wanted document.
    """
    file = folder / "corpus.jsonl"
    documents: dict[str, str] = {}
    for location, row in objects(file):
        document = _id(location, row)
        if wanted is not None and document not in wanted:
            continue
        if document in documents:
            refuse(location, f"duplicate id {document!r}")
        documents[document] = _document(location, row)
    if not documents and not wanted:
        raise BadSettings(f"{file} holds no documents")
    if missing := [name for name in wanted or () if name not in documents]:
        raise BadSettings(f"{file} lacks the candidate {missing[0]!r}{_more(missing)}")
    return documents


def _document(location: str, row: dict[str, Any]) -> str:
    """Title and text; both may be empty or null, as in some of BEIR's data sets."""
    for name in ("title", "text"):
        if not isinstance(row.get(name) or "", str):
            text_field(location, row, name)
    if "text" not in row:
        refuse(location, "has no 'text'")
    return f"{row.get('title') or ''} {row['text'] or ''}".strip()


def _id(location: str, row: dict[str, Any]) -> str:
    value = row.get("_id")
    return str(value) if type(value) is int else text_field(location, row, "_id")


def _more(missing: list[str]) -> str:
    return f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
