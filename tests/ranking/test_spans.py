"""Relevant spans in the ranker: deadlines and what is released."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from rankd.errors import DeadlineExceeded
from rankd.models.checkpoint import locate
from rankd.prompts import PromptEncoder, open_encoder
from rankd.ranking.admission import Admission
from rankd.ranking.ranker import Ranker
from rankd.types import RankRequest, SpanOptions
from support.slow_engine import Slow

pytestmark = pytest.mark.anyio

SOON = 0.5
REQUEST = RankRequest(
    "What is the capital of China?",
    ("Beijing is the capital. It is large.", "Bread."),
    details=True,
    spans=SpanOptions(min_score=0),
)


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return open_encoder(
        locate("builtin"), max_tokens=512, instruction="Find it.", max_instruction_tokens=512
    )


async def test_a_deadline_between_documents_and_sentences_fails_the_request(
    encoder: PromptEncoder,
) -> None:
    ranker = Ranker(encoder, Slow(ready=2), max_documents=10)
    request = replace(REQUEST, documents=("One. Two. Three.", "Bread."))

    with pytest.raises(DeadlineExceeded):
        await ranker.rank(replace(request, deadline=time.monotonic() + SOON))


async def test_a_partial_answer_lacks_the_spans_that_were_not_scored(
    encoder: PromptEncoder,
) -> None:
    ranker = Ranker(encoder, Slow(ready=2), max_documents=10)
    request = replace(REQUEST, documents=("One. Two. Three.", "Bread."))

    late, bread = await ranker.rank(
        replace(request, partial=True, deadline=time.monotonic() + SOON)
    )

    assert late.relevant_spans is None
    assert [span[:2] for span in bread.relevant_spans or ()] == [(0, 6)]


async def test_everything_reserved_is_released(encoder: PromptEncoder) -> None:
    admission = Admission(max_waiting_tokens=10_000)
    ranker = Ranker(encoder, Slow(ready=9), max_documents=10, admission=admission)

    first, _ = await ranker.rank(REQUEST)

    assert len(first.relevant_spans or ()) == 2
    assert admission.tokens == admission.requests == 0


async def test_spans_of_one_request_share_its_prefix(encoder: PromptEncoder) -> None:
    scheduler = Slow(ready=9)
    calls: list[set[tuple[int, ...]]] = []
    score = scheduler.score

    async def watched(prompts, **options):  # type: ignore[no-untyped-def]
        calls.append({prompt.prefix for prompt in prompts})
        return await score(prompts, **options)

    scheduler.score = watched  # type: ignore[method-assign]
    await Ranker(encoder, scheduler, max_documents=10).rank(REQUEST)

    assert len(calls) == 2
    assert calls[0] == calls[1]
    assert len(calls[0]) == 1
