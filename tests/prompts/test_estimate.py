"""Token counts without encoding: the lower bound and the estimate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankd.types import RankRequest, Side, Truncation
from support.prompts import encoder, texts


@pytest.fixture(params=["qwen", "builtin"])
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    documents=st.lists(st.one_of(texts, st.text(max_size=400)), min_size=1, max_size=6),
    limit=st.one_of(st.none(), st.integers(1, 40)),
    truncation=st.sampled_from(["cut", "chunk"]),
    side=st.sampled_from(["left", "right"]),
    chunks=st.one_of(st.none(), st.integers(1, 3)),
    room=st.one_of(st.none(), st.integers(1, 40)),
)
def test_the_lower_bound_is_never_above_the_number_of_tokens(
    folder: Path,
    documents: list[str],
    limit: int | None,
    truncation: Truncation,
    side: Side,
    chunks: int | None,
    room: int | None,
) -> None:
    request = RankRequest("q", tuple(documents), None, limit, truncation, chunks, side=side)
    if room is not None:
        [one_token] = encoder(folder).encode_blocking(RankRequest("q", ("",))).prompts
        request = replace(request, max_prompt_tokens=len(one_token) - 1 + room)

    tokens = sum(map(len, set(encoder(folder).encode_blocking(request).prompts)))

    assert encoder(folder).min_tokens([request]) <= tokens


def test_the_lower_bound_counts_two_spellings_of_a_text_once(folder: Path) -> None:
    spellings = ("é" * 500, "e\u0301" * 500)

    both = encoder(folder).min_tokens([RankRequest("q", spellings)])

    assert both == max(
        encoder(folder).min_tokens([RankRequest("q", (text,))]) for text in spellings
    )


def test_the_lower_bound_counts_different_documents(folder: Path) -> None:
    alike = RankRequest("q", ("the same",) * 50)
    different = RankRequest("q", tuple(f"{number} document" for number in range(50)))
    long = RankRequest("q", ("word and more " * 10_000,))

    one, fifty, many = (
        encoder(folder).min_tokens([request]) for request in (alike, different, long)
    )

    assert fifty == 50 * one
    assert many > 10 * one


@pytest.mark.parametrize("pattern", ["docs/*.md", "src/rankd/**/*.py", "configs/*.toml"])
def test_the_estimate_of_ordinary_texts_is_below_their_tokens_and_above_half(
    qwen: Path, pattern: str
) -> None:
    texts = [file.read_text() for file in Path(__file__).parents[2].glob(pattern)]
    assert texts
    parts = tuple({text[at : at + 800] for text in texts for at in range(0, len(text), 800)})
    request = RankRequest("q", parts)

    tokens = sum(map(len, encoder(qwen).encode_blocking(request).prompts))

    assert 0.5 * tokens < encoder(qwen).estimated_tokens([request]) < tokens


@pytest.mark.parametrize(
    "text",
    [
        "Die Geschwindigkeit, mit der sich Donaudampfschifffahrtsgesellschaften ändern, ist klein.",
        "La réponse à cette question dépend de l'année, où l'on mesure les températures d'été.",
        "Скорость ответа зависит от того, сколько документов ожидает своей очереди на сервере.",
        "服务器一次只接受它能够处理的请求，其余的请求会被拒绝，并告知何时可以再试。",
    ],
)
def test_the_estimate_is_below_the_tokens_in_other_languages_too(qwen: Path, text: str) -> None:
    request = RankRequest("q", (text * 5,))

    tokens = sum(map(len, encoder(qwen).encode_blocking(request).prompts))

    assert encoder(qwen).estimated_tokens([request]) < tokens


@pytest.mark.parametrize(
    "fields",
    [
        {"truncation": "chunk"},
        {"truncation": "chunk", "max_chunks": 9},
        {"max_document_tokens": 100, "max_chunks": 9, "overlap": 40},
        {"truncation": "chunk", "max_document_tokens": 100, "overlap": 90},
        {"truncation": "cut", "max_document_tokens": 100},
        {},
    ],
)
def test_the_estimate_counts_every_chunk_and_its_overlap(qwen: Path, fields: Any) -> None:
    files = [*(Path(__file__).parents[2] / "docs").glob("*.md")]
    assert files
    request = RankRequest("q", tuple(file.read_text() for file in files), **fields)

    tokens = sum(map(len, encoder(qwen).encode_blocking(request).prompts))

    assert 0.5 * tokens < encoder(qwen).estimated_tokens([request]) <= tokens
