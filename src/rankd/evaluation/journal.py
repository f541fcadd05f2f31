"""Scores on disk as they come, so that what ends in the middle goes on where it was.

A file of JSON lines: first what decides the scores, then one line a query. What decides
them is in the file's name, too, so that a changed model, instruction, depth or corpus
begins a file of its own and nothing is ever mixed.
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
from rankd.evaluation.scorers import QueryScores, is_same


class Journal:
    """The scores of one scorer on one set of candidates.

    Attributes:
        known: what was there when it was opened, and what was kept since, by query.
        reused: queries that were there when it was opened.
    """

    def __init__(self, path: Path, stream: BinaryIO, known: dict[str, QueryScores]) -> None:
        self.path = path
        self.known = known
        self.reused = len(known)
        self._stream = stream

    def keep(self, query: str, scored: QueryScores) -> None:
        """On disk when this returns."""
        row: dict[str, Any] = {"query": query, "logits": scored.logits}
        if scored.warning:
            row["warning"] = scored.warning
        self._write(row)
        self.known[query] = scored

    def _write(self, row: Mapping[str, Any]) -> None:
        self._stream.write(orjson.dumps(row) + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())


@contextmanager
def open_journal(
    folder: Path, about: Mapping[str, Any], probe: list[float], sizes: Mapping[str, int]
) -> Iterator[Journal]:
    """The journal of what `about` describes, continued or new.

    Args:
        probe: how a server scores known pairs now; see `Scorer.probe`.
        sizes: how many candidates each query has.

    Raises:
        BadSettings: another process writes it, it is damaged, or the server behind its
            URL does not score as it did.
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
        journal = Journal(path, stream, _scored(path, rows[1:], sizes))
        if not rows:
            journal._write({"about": dict(about), "probe": probe})
        yield journal


def _lock(path: Path, stream: BinaryIO) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BadSettings(f"another rankd eval is writing {path}") from None


def _rows(path: Path, stream: BinaryIO) -> list[dict[str, Any]]:
    """All whole lines; half a line at the end, left by a process that died, is cut off."""
    stream.seek(0)
    content = stream.read()
    whole = content.rfind(b"\n") + 1
    stream.truncate(whole)
    rows = []
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            rows.append(dict(orjson.loads(line)))
        except (ValueError, TypeError):
            raise _damaged(path, number) from None
    return rows


def _scored(
    path: Path, rows: list[dict[str, Any]], sizes: Mapping[str, int]
) -> dict[str, QueryScores]:
    known = {}
    for number, row in enumerate(rows, 2):
        query, logits = str(row.get("query")), row.get("logits")
        if not isinstance(logits, list) or len(logits) != sizes.get(query):
            raise _damaged(path, number)
        known[query] = QueryScores(logits, row.get("warning"))
    return known


def _refuse_another(
    path: Path, head: Mapping[str, Any], about: Mapping[str, Any], probe: list[float]
) -> None:
    if head.get("about") != about:
        raise BadSettings(f"{path} holds the scores of something else; it was renamed or edited")
    if not is_same(probe, head.get("probe", [])):
        raise BadSettings(
            f"{about.get('url')} does not score as it did when {path} was begun: another model "
            "may be there now. Delete the file to score anew"
        )


def _damaged(path: Path, number: int) -> BadSettings:
    return BadSettings(f"{path}:{number} is damaged; delete the file to score anew")
