"""Answers as HTML: users' texts are neither markup nor templates of Gradio."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest

from rankd.ui import render
from rankd.ui.answers import PageError, RerankAnswer
from rankd.ui.snippets import CodeSnippets

EVIL = "<script>alert(1)</script><img src=x onerror='alert(1)'>\"' ${1+1} {{value}} @children `"


class Reader(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def answer(*scores: float, warnings: list[str] | None = None, **details: Any) -> RerankAnswer:
    results = [
        {"index": index, "relevance_score": score, **details} for index, score in enumerate(scores)
    ]
    results.sort(key=lambda result: -float(str(result["relevance_score"])))
    return RerankAnswer(results, frozenset({1}), 42, warnings or [], 12.3, "id-1")


PAGES = {
    "ranking": render.ranking(
        render.RankingColumn.of(answer(0.5, 0.6, warnings=[EVIL]), [EVIL, {"title": EVIL}])
    ),
    "comparison": render.comparison(
        render.RankingColumn.of(answer(0.5), [EVIL]),
        render.RankingColumn.of(answer(0.5), [EVIL]),
        (EVIL, EVIL),
    ),
    "error": render.error(PageError(EVIL, 400, EVIL)),
    "server info": render.server_info(EVIL, [EVIL]),
    "snippets": render.snippets(
        CodeSnippets("http://a", {"query": EVIL, "documents": [EVIL], "instruction": EVIL}, True)
    ),
}


@pytest.mark.parametrize("name", PAGES)
def test_no_text_of_a_user_is_markup(name: str) -> None:
    reader = Reader(PAGES[name])

    assert not {"script", "img"} & set(reader.tags)
    assert "alert(1)" in reader.text


@pytest.mark.parametrize("name", PAGES)
def test_no_text_of_a_user_is_a_template(name: str) -> None:
    for mark in ("${", "{{", "@children", "`"):
        assert mark not in PAGES[name]


def test_each_document_shows_by_how_many_ranks_it_moved() -> None:
    page = render.ranking(render.RankingColumn.of(answer(0.1, 0.2, 0.9), ["a", "b", "c"]))
    first, second, third = page.split("<li>")[1:]

    assert "▲2" in first
    assert "#3 in the input" in first
    assert "rk-same" in second
    assert "▼2" in third


def test_tokens_truncation_chunks_and_cached_scores_are_shown() -> None:
    details: dict[str, Any] = {"tokens": 1234, "truncated": True, "chunk": {"of": 3}}
    page = render.ranking(render.RankingColumn.of(answer(0.9, 0.1, **details), ["a", "b"]))
    first, second = page.split("<li>")[1:]

    assert "1,234 tokens" in first
    assert "truncated" in first
    assert "best of 3 chunks" in first
    assert "cached" not in first
    assert "cached" in second


def test_at_most_two_hundred_documents_are_shown_and_the_rest_is_counted() -> None:
    page = render.ranking(render.RankingColumn.of(answer(*[0.5] * 1000), ["text"] * 1000))

    assert page.count("<li>") == 200
    assert "800 more" in page


def test_a_comparison_counts_the_ranks_that_differ() -> None:
    texts = ["a", "b", "c"]
    first = render.RankingColumn.of(answer(0.9, 0.5, 0.1), texts)
    second = render.RankingColumn(answer(0.9, 0.1, 0.5), texts, {0: 0, 1: 1, 2: 2}, "in A")
    page = render.comparison(first, second, ("one", "other"))

    assert "2 of 3 ranks differ; the best document is the same" in page


def test_the_distribution_counts_every_score_once() -> None:
    page = render.distribution(answer(0.0, 0.001, 0.5, 0.999, 1.0))

    assert page.count("<circle") == 5
    assert page.count('class="rk-bin"') == 3
    assert "3 of 5" in Reader(page).text
    assert "0.4990 after rank 3" in page or "0.4990 after rank 2" in page


def test_a_very_long_snippet_is_left_out() -> None:
    page = render.snippets(
        CodeSnippets("http://a", {"query": "q", "documents": ["x" * 100_000]}, False)
    )

    assert "too long" in page
    assert len(page) < 10_000
