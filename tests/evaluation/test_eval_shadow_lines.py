"""`rankd eval --shadow-lines`: judging both scorings of a shadow by its lines."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from rankd.config.settings import Settings
from rankd.server.app import open_app
from support.typed import run

DOCUMENTS = {"fox": "a fox is an animal", "bread": "bread is food", "sea": "the sea is wide"}
QUERIES = {"q1": "what is a fox", "q2": "what is bread", "q3": "how wide is the sea"}
RELEVANT = {"q1": "fox", "q2": "bread", "q3": "sea"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "data/qrels").mkdir(parents=True)
    for name, texts in (("corpus", DOCUMENTS), ("queries", QUERIES)):
        rows = [json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items()]
        (tmp_path / f"data/{name}.jsonl").write_text("".join(rows))
    judged = [f"{query}\t{document}\t1\n" for query, document in RELEVANT.items()]
    (tmp_path / "data/qrels/test.tsv").write_text("".join(judged))
    return tmp_path / "data"


def shadowed(log: Path, **table: Any) -> None:
    """Lines of a real server, whose shadow reads two tokens of each document."""

    async def ask() -> None:
        settings = Settings(
            engine="fake",
            aliases={"short": {"max_tokens_per_doc": 1}},
            shadow=[{"name": "short", "share": 1, "alias": "short", "log": str(log), **table}],
        )
        async with open_app(settings) as app:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://rankd") as client:
                for query in (*QUERIES.values(), "a query without judgments"):
                    body = {"query": query, "documents": [*DOCUMENTS.values(), "not in the corpus"]}
                    assert (await client.post("/v1/rerank", json=body)).status_code == 200
            await app.state.service.shadows.finished()

    asyncio.run(ask())


@pytest.mark.parametrize("texts", [False, True])
def test_answers_and_shadow_are_judged_and_tested_in_pairs(
    folder: Path, tmp_path: Path, texts: bool
) -> None:
    log, out = tmp_path / "lines.jsonl", tmp_path / "out"
    shadowed(log, texts=texts)
    arguments = ("--shadow-lines", str(log), "--out", str(out), "--measures", "MRR@10")
    ended = run("eval", str(folder), *arguments)

    assert ended.returncode == 0, ended.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["data"]["queries"] == 3
    assert report["data"]["pairs"] == 12
    answers, shadow = report["systems"]
    assert answers["measures"]["MRR@10"] == 1
    assert shadow["measures"]["MRR@10"] < 1
    assert shadow["about"]["model"] == "short"
    assert report["comparison"]["measures"]["MRR@10"]["worse"] >= 1
    assert "B against A: MRR@10 -" in ended.stdout


LINE = {"shadow": "x", "query": "q", "documents": ["d"], "logits": [1.0], "shadow_logits": [2.0]}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([LINE], "has none of the judged queries"),
        ([{**LINE, "shadow": "y"}, LINE], "has lines of several shadows: x, y"),
        ([{"query": "q"}], "lines.jsonl:1: has no 'shadow'"),
        ([{**LINE, "documents": "d"}], "lines.jsonl:1: has no list of documents"),
        (
            [LINE, {**LINE, "shadow_logits": []}],
            "lines.jsonl:2: 'shadow_logits' must have a number",
        ),
    ],
)
def test_wrong_lines_are_named(
    folder: Path, tmp_path: Path, rows: list[dict[str, Any]], message: str
) -> None:
    log = tmp_path / "lines.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = run("eval", str(folder), "--shadow-lines", str(log))

    assert ended.returncode != 0
    assert message in ended.stderr


def test_nothing_else_can_be_compared_with_it(folder: Path, tmp_path: Path) -> None:
    arguments = ("--shadow-lines", str(tmp_path / "x"), "--against", "other")
    ended = run("eval", str(folder), *arguments)

    assert "--shadow-lines compares what its lines hold" in ended.stderr
