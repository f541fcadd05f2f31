"""Java libraries."""

from __future__ import annotations

from collections.abc import Sequence

from readers.base import (
    Exchange,
    Scores,
    best_first,
    by_position,
    complete,
    integer,
    ok,
    reads,
    scores_by_index,
)


@reads("spring-ai-alibaba-dashscope")
def spring_ai_alibaba(exchanges: Sequence[Exchange]) -> Scores:
    """Parses into records with `Integer`, `Double`, and a map as document."""
    answer = ok(exchanges[-1]).answer
    for result in answer["output"]["results"]:
        assert isinstance(result.get("document"), dict | None)
    return best_first(scores_by_index(answer["output"]["results"]))


@reads("langchain4j-cohere")
def langchain4j_cohere(exchanges: Sequence[Exchange]) -> Scores:
    """Calls `getMeta().getBilledUnits().getSearchUnits()` without a check for null."""
    answer = ok(exchanges[-1]).answer
    assert integer(answer["meta"]["billed_units"]["search_units"]) > 0
    return by_position(exchanges)


@reads("langchain4j-jina")
def langchain4j_jina(exchanges: Sequence[Exchange]) -> Scores:
    usage = ok(exchanges[-1]).answer["usage"]
    assert integer(usage["prompt_tokens"]) <= integer(usage["total_tokens"])
    return by_position(exchanges)


@reads("langchain4j-voyage")
def langchain4j_voyage(exchanges: Sequence[Exchange]) -> Scores:
    last = ok(exchanges[-1])
    assert integer(last.answer["usage"]["total_tokens"]) > 0
    return complete(last, scores_by_index(last.answer["data"]))
