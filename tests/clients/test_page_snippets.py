"""The web page's programs for Cohere and LangChain, with the published packages."""

from __future__ import annotations

import os
import subprocess

import httpx
import pytest
from test_clients import ENVIRONMENTS, QUIET

from support.servers import serving
from support.snippets import snippet

pytestmark = pytest.mark.clients

KEY = "a-key-of-the-snippets"
DOCUMENTS = [
    "two\nlines",
    'it\'s "quoted" \\',
    "中文",
    {"text": "an object", "n": 7},
    {"title": "A"},
]
TEXTS = ["two\nlines", 'it\'s "quoted" \\', "中文", "an object", "title: A"]


@pytest.mark.parametrize(
    ("name", "environment", "chosen"),
    [
        ("Cohere", "cohere5", {"instruction": "Find it"}),
        ("Cohere", "cohere7", {}),
        ("Cohere", "cohere7", {"instruction": "Find it"}),
        ("LangChain", "cohere5", {}),
    ],
)
def test_the_snippet_prints_the_scores_of_the_same_request(
    name: str, environment: str, chosen: dict[str, str]
) -> None:
    body = {"query": "it's?", "documents": DOCUMENTS, **chosen}
    with serving("--api-key", KEY, "--strict-model", "--threads", "1") as server:
        headers = {"authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{server.url}/v1/rerank", json=body, headers=headers, timeout=60)
        code = snippet(name, server.url, {**body, "return_details": True}, needs_key=True)
        ended = subprocess.run(
            [str(ENVIRONMENTS / environment / "bin" / "python"), "-"],
            input=code,
            capture_output=True,
            text=True,
            timeout=120,
            env=os.environ | QUIET | {"RANKD_API_KEY": KEY},
            check=False,
        )

    assert ended.returncode == 0, ended.stderr
    results = answer.json()["results"]
    expected = [f"{r['relevance_score']:.4f} {TEXTS[r['index']]}" for r in results]
    assert ended.stdout == "".join(f"{line}\n" for line in expected)
    assert KEY not in code
