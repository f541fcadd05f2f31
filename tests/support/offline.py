"""`rankd score` in this process, and files of rows for it."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankd.cli import parser
from rankd.cli.common import load_settings
from rankd.offline.options import ScoreOptions
from rankd.offline.score import score

Rows = list[dict[str, Any]]


def score_files(*arguments: str | Path) -> int:
    """Run `rankd score` on the fake engine, unless the arguments name another."""
    given = ["score", "--engine", "fake", *map(str, arguments)]
    options = parser.build().parse_args(given)
    return asyncio.run(score(load_settings(options), ScoreOptions.of(options)))


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    data = text.encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def read_rows(path: Path) -> Rows:
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line) for line in text.splitlines()]


def pairs(count: int, first: int = 0) -> Rows:
    """Rows with an id, a query that ten rows share, and a document of some words."""
    numbers = range(first, first + count)
    return [
        {"id": n, "query": f"query {n // 10}", "document": f"query {n} and {'word ' * (n % 7)}"}
        for n in numbers
    ]
