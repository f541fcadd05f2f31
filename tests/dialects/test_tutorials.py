"""The base URLs that the docs give for the clients of two published tutorials."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

ROOT = Path(__file__).parents[2]
HOST = "http://127.0.0.1:8000"
PAGES = ("README.md", "README.zh-CN.md", "docs/clients.md")
BODY = {"query": "q", "documents": ["a", "b"], "instruction": "i", "max_length": 8192}


@pytest.mark.parametrize("page", PAGES)
def test_the_page_names_both_base_urls(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")

    assert re.findall(rf"`{HOST}(/simple|/plain)`", text) == ["/simple", "/plain"]


def test_the_client_that_reads_scores_is_answered_at_simple(client: TestClient) -> None:
    assert client.get("/simple/health").json()["model_loaded"] is True
    answer = client.post("/simple/rerank", json={**BODY, "top_k": 1}).json()

    assert len(answer["scores"]) == 2
    assert len(answer["ranked_documents"]) == len(answer["ranked_scores"]) == 1


def test_the_client_that_reads_documents_as_strings_is_answered_at_plain(
    client: TestClient,
) -> None:
    answer = client.post("/plain/rerank", json=BODY).json()

    assert {result["document"] for result in answer["results"]} == {"a", "b"}
