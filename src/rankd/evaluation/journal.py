"""Stores scores while they are computed, so that an interrupted `rankd eval` can continue.

A file of JSON Lines: first what decides the scores, then one line per query. The file's name
holds a digest of the first line, so another model, instruction, depth or corpus gets another
file.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from rankd.errors import BadSettings
from rankd.evaluation.scorer import QueryScores, same_scorer


class Journal:
    """The scores of one scorer on one set of candidates.

    Attributes:
        scores: by query; read from the file, and appended since.
        reused: number of queries that were read from the file.
    """

    def __init__(self, path: Path, stream: BinaryIO, scores: dict[str, QueryScores]) -> None:
        self.path = path
        self.scores = scores
        self.reused = len(scores)
        self._stream = stream

    def append(self, query: str, scored: QueryScores) -> None:
        """Write one query's scores; they are on disk on return."""
        row: dict[str, Any] = {"query": query, "logits": scored.logits}
        if scored.warning:
            row["warning"] = scored.warning
        self._write(row)
        self.scores[query] = scored

    def _write(self, row: Mapping[str, Any]) -> None:
        self._stream.write(orjson.dumps(row) + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())


@contextmanager
def open_journal(
    folder: Path, about: Mapping[str, Any], probe: list[float], sizes: Mapping[str, int]
) -> Iterator[Journal]:
    """Open the journal of the scorer that `about` describes, or begin one.

    Args:
        probe: the server's logits of known pairs now; see `Scorer.probe`.
        sizes: number of candidates by query.

    Raises:
        BadSettings: another process writes the file, it is damaged, or the server scores the
            known pairs differently than when the file was begun.
    """
    digest = hashlib.sha256(orjson.dumps(about, option=orjson.OPT_SORT_KEYS)).hexdigest()[:12]
    path = folder / f"scores-{digest}.jsonl"
    try:
        stream = path.open("a+b")
    except OSError as problem:
        raise BadSettings(f"cannot write {path}: {problem.strerror}") from None
    with stream:
        _lock(path, stream)
        rows = _rows(path, stream)
        if rows:
            _refuse_another(path, rows[0], about, probe)
        journal = Journal(path, stream, _scores(path, rows[1:], sizes))
        if not rows:
            journal._write({"about": dict(about), "probe": probe})
        yield journal


def _lock(path: Path, stream: BinaryIO) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadSettings(f"another rankd eval is writing {path}") from None


def _rows(path: Path, stream: BinaryIO) -> list[dict[str, Any]]:
    """All complete lines; a partial last line, left by a killed process, is removed."""
    stream.seek(0)
    content = stream.read()
    complete = content.rfind(b"\n") + 1
    stream.truncate(complete)
    rows = []
    for number, line in enumerate(content[:complete].splitlines(), 1):
        try:
            rows.append(dict(orjson.loads(line)))
        except (ValueError, TypeError):
            raise _damaged(path, number) from None
    return rows


def _scores(
    path: Path, rows: list[dict[str, Any]], sizes: Mapping[str, int]
) -> dict[str, QueryScores]:
    scores = {}
    for number, row in enumerate(rows, 2):
        query, logits = str(row.get("query")), row.get("logits")
        if not isinstance(logits, list) or len(logits) != sizes.get(query):
            raise _damaged(path, number)
        scores[query] = QueryScores(logits, row.get("warning"))
    return scores


def _refuse_another(
    path: Path, header: Mapping[str, Any], about: Mapping[str, Any], probe: list[float]
) -> None:
    if header.get("about") != about:
        raise BadSettings(
            f"{path} holds the scores of another scorer or data set: it was renamed or edited"
        )
    if not same_scorer(probe, header.get("probe", [])):
        raise BadSettings(
            f"{about.get('url')} does not score as it did when {path} was begun: it may serve "
            "another model now. Delete the file to score again"
        )


def _damaged(path: Path, number: int) -> BadSettings:
    return BadSettings(f"{path}:{number} is damaged; delete the file to score again")
