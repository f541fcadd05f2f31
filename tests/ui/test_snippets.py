"""Snippets run: each asks exactly what the page asked, and none holds a key."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rankd.ui.snippets import Shown
from support.servers import Server, serving

KEY = "kept-out-of-every-snippet"

PACKAGE = Path(__file__).parents[2] / "clients" / "typescript"

# What a shell, a JSON reader and two languages could each stumble over.
HARD = [
    "it's \"quoted\" and 'quoted' \\ $(id) `id` ${HOME} $HOME !",
    "two\nlines\tand a tab",
    "JSON\nEOF\n'JSON'",
    "中文 emoji 🎉 \u2028 \x7f",
    "{braces} {{braces}} %s %d",
    "</script><!-- -->",
]

BODY: dict[str, Any] = {
    "query": HARD[0],
    "documents": [*HARD, {"text": "an object", "n": 7, "yes": True, "no": None}],
    "instruction": 'say "which" it\'s',
    "return_details": True,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--engine", "fake", "--api-key", KEY, "--cache-mb", "0") as server:
        yield server


def shell(code: str, *command: str, where: Path | None = None) -> str:
    ended = subprocess.run(
        command,
        input=code,
        env={**os.environ, "RANKD_API_KEY": KEY},
        cwd=where,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def by_curl(server: Server) -> list[dict[str, Any]]:
    """What the server says to the body itself."""
    answer = shell(
        json.dumps(BODY),
        *("curl", "-s", f"{server.url}/v1/rerank", "-H", f"Authorization: Bearer {KEY}"),
        *("-d", "@-"),
    )
    results: list[dict[str, Any]] = json.loads(answer)["results"]
    return results


def printed(results: list[dict[str, Any]]) -> list[str]:
    return [f"{result['relevance_score']:.4f}" for result in results]


def test_curl_gets_the_answer_that_the_page_got(server: Server) -> None:
    code = Shown(server.url, BODY, needs_key=True).curl()

    assert json.loads(shell(code, "bash"))["results"] == by_curl(server)
    assert KEY not in code


def test_python_gets_the_answer_that_the_page_got(server: Server) -> None:
    code = Shown(server.url, BODY, needs_key=True).python()
    said = shell(code, sys.executable, "-")

    results = by_curl(server)
    for result, score in zip(results, printed(results), strict=True):
        assert f"{score} {result['document']['text']}" in said
    assert KEY not in code


def test_without_keys_no_snippet_speaks_of_one() -> None:
    shown = Shown("http://a", BODY, needs_key=False)

    for code in (shown.curl(), shown.python(), shown.typescript()):
        assert "KEY" not in code


def test_an_address_that_is_no_address_stays_a_word_of_the_shell() -> None:
    code = Shown("http://a/$(touch x)'", {"query": "q", "documents": ["d"]}, False).curl()

    assert "'http://a/$(touch x)'\"'\"'/v1/rerank'" in code


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TypeScript client as somebody builds it."""
    if shutil.which("npm") is None:
        if os.environ.get("CI"):
            pytest.fail("needs Node.js")
        pytest.skip("needs Node.js")
    copy = tmp_path_factory.mktemp("typescript") / "rankd"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
    shell("", "npm", "install", "--no-audit", "--no-fund", where=copy)
    shell("", "npm", "run", "build", where=copy)
    return copy


@pytest.mark.ui
def test_typescript_gets_the_answer_that_the_page_got(server: Server, built: Path) -> None:
    code = Shown(server.url, BODY, needs_key=True).typescript()
    # It has no types of its own to take out: Node.js runs it, and finds the package by its name.
    (built / "asked.mjs").write_text(code, encoding="utf-8")

    lines = shell("", "node", "asked.mjs", where=built).splitlines()

    scores = [line.split()[0] for line in lines if line[:2] in ("0.", "1.")]
    assert scores == printed(by_curl(server))
    assert KEY not in code


@pytest.mark.ui
def test_typescript_has_the_types_of_the_client(built: Path) -> None:
    (built / "typed.ts").write_text(
        Shown("http://a", BODY, needs_key=False).typescript(), encoding="utf-8"
    )
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext"]

    shell("", "npx", "tsc", *options, "--lib", "es2022,dom", "typed.ts", where=built)
