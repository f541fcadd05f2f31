"""Every snippet runs, sends the page's request, and contains no key."""

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

from support.servers import Server, serving
from support.snippets import STATIC, snippet

KEY = "kept-out-of-every-snippet"

PACKAGE = Path(__file__).parents[2] / "clients" / "typescript"

# Characters with a meaning in shell, JSON, Python or JavaScript.
SPECIAL = [
    "it's \"quoted\" and 'quoted' \\ $(id) `id` ${HOME} $HOME !",
    "two\nlines\tand a tab",
    "JSON\nEOF\n'JSON'",
    "中文 emoji 🎉 \u2028 \x7f",
    "{braces} {{braces}} %s %d",
    "</script><!-- -->",
]

BODY: dict[str, Any] = {
    "query": SPECIAL[0],
    "documents": [*SPECIAL, {"text": "an object", "n": 7, "yes": True, "no": None}],
    "instruction": 'say "which" it\'s',
    "return_details": True,
}

NAMES = ("curl", "requests", "rankd (Python)", "Cohere", "LangChain", "TypeScript")


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


def expected_results(server: Server) -> list[dict[str, Any]]:
    """The server's results for the same body."""
    answer = shell(
        json.dumps(BODY),
        *("curl", "-s", f"{server.url}/v1/rerank", "-H", f"Authorization: Bearer {KEY}"),
        *("-d", "@-"),
    )
    results: list[dict[str, Any]] = json.loads(answer)["results"]
    return results


def formatted_scores(results: list[dict[str, Any]]) -> list[str]:
    return [f"{result['relevance_score']:.4f}" for result in results]


def test_the_curl_snippet_gets_the_same_answer(server: Server) -> None:
    code = snippet("curl", server.url, BODY, needs_key=True)

    assert json.loads(shell(code, "bash"))["results"] == expected_results(server)
    assert KEY not in code


@pytest.mark.parametrize("name", ["requests", "rankd (Python)"])
def test_the_python_snippets_get_the_same_answer(server: Server, name: str) -> None:
    code = snippet(name, server.url, BODY, needs_key=True)
    output = shell(code, sys.executable, "-")

    results = expected_results(server)
    for result, score in zip(results, formatted_scores(results), strict=True):
        assert f"{score} {result['document']['text']}" in output
    assert KEY not in code


@pytest.mark.parametrize("name", NAMES)
def test_without_keys_no_snippet_mentions_one(name: str) -> None:
    assert "RANKD_API_KEY" not in snippet(name, "http://a", BODY)
    assert "RANKD_API_KEY" in snippet(name, "http://a", BODY, needs_key=True)


def test_the_names_of_the_snippets_are_those_of_the_page() -> None:
    code = (STATIC / "snippets.js").read_text(encoding="utf-8")

    assert code.count("\nfunction ") == len(NAMES) + 1  # One writes Python's literals.


def test_the_server_address_is_quoted_for_the_shell() -> None:
    code = snippet("curl", "http://a/$(touch x)'", {"query": "q", "documents": ["d"]})

    assert "'http://a/$(touch x)'\"'\"'/v1/rerank'" in code


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The TypeScript client, built with npm."""
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
def test_the_typescript_snippet_gets_the_same_answer(server: Server, built: Path) -> None:
    code = snippet("TypeScript", server.url, BODY, needs_key=True)
    # The snippet has no type annotations, so Node.js runs it as JavaScript. A package can import
    # itself by its own name.
    (built / "snippet.mjs").write_text(code, encoding="utf-8")

    lines = shell("", "node", "snippet.mjs", where=built).splitlines()

    scores = [line.split()[0] for line in lines if line[:2] in ("0.", "1.")]
    assert scores == formatted_scores(expected_results(server))
    assert KEY not in code


@pytest.mark.ui
def test_the_typescript_snippet_passes_the_type_checker(built: Path) -> None:
    code = snippet("TypeScript", "http://a", BODY)
    (built / "typed.ts").write_text(code, encoding="utf-8")
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext"]

    shell("", "npx", "tsc", *options, "--lib", "es2022,dom", "typed.ts", where=built)
