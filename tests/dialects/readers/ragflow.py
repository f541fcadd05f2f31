"""RAGFlow's rerank factories, in Python and in Go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from readers.base import Exchange, Scores, go, indexes_in_range, integer, ok, reads


@reads(
    "ragflow-jina",
    "ragflow-openai-api-compatible",
    "ragflow-gpustack",
    "ragflow-localai",
    "ragflow-siliconflow",
    "ragflow-cohere",
)
def ragflow(exchanges: Sequence[Exchange]) -> Scores:
    return within_0_and_1(
        _ranks(exchanges[-1], ok(exchanges[-1]).answer["results"], "relevance_score")
    )


@reads("ragflow-xinference")
def ragflow_xinference(exchanges: Sequence[Exchange]) -> Scores:
    """RAGFlow's forks also read the token counts in `meta`."""
    answer = ok(exchanges[-1]).answer
    tokens = answer["meta"]["tokens"]
    assert integer(tokens["input_tokens"]) + integer(tokens["output_tokens"]) > 0
    return within_0_and_1(_ranks(exchanges[-1], answer["results"], "relevance_score"))


@reads("ragflow-tongyi")
def ragflow_tongyi(exchanges: Sequence[Exchange]) -> Scores:
    answer = ok(exchanges[-1]).answer
    assert integer(answer["usage"]["total_tokens"]) > 0
    return within_0_and_1(_ranks(exchanges[-1], answer["output"]["results"], "relevance_score"))


@reads("ragflow-huggingface")
def ragflow_huggingface(exchanges: Sequence[Exchange]) -> Scores:
    return within_0_and_1(_ranks(exchanges[-1], ok(exchanges[-1]).answer, "score"))


@reads("ragflow-nvidia")
def ragflow_nvidia(exchanges: Sequence[Exchange]) -> Scores:
    return _ranks(exchanges[-1], ok(exchanges[-1]).answer["rankings"], "logit")


def _ranks(exchange: Exchange, items: Iterable[Mapping[str, Any]], score: str) -> Scores:
    """An array of zeros, filled by index: a missing document keeps 0."""
    ranks = [0.0] * len(exchange.documents)
    for item in items:
        ranks[item["index"]] = item[score]
    return dict(enumerate(ranks))


def within_0_and_1(scores: Scores) -> Scores:
    """RAGFlow rescales scores unless all are in [0, 1]."""
    assert all(0 <= score <= 1 for score in scores.values()), scores
    return scores


GO_RANKING = {
    "id": str,
    "model": str,
    "results": [{"index": int, "relevance_score": float, "document": {"text": str}}],
    "usage": {"prompt_tokens": int, "total_tokens": int},
}


@reads("ragflow-go-vllm", "ragflow-go-xinference")
def ragflow_go(exchanges: Sequence[Exchange]) -> Scores:
    return indexes_in_range(exchanges[-1], go(ok(exchanges[-1]).answer, GO_RANKING)["results"])


@reads("ragflow-go-jina")
def ragflow_go_jina(exchanges: Sequence[Exchange]) -> Scores:
    """Lists the models first, without a key; a model without `name` is a panic."""
    models, last = (ok(exchange) for exchange in exchanges)
    for model in models.answer["data"]:
        assert isinstance(model["name"], str)
    return indexes_in_range(last, go(last.answer, GO_RANKING)["results"])


@reads("ragflow-go-cohere")
def ragflow_go_cohere(exchanges: Sequence[Exchange]) -> Scores:
    shape = {**GO_RANKING, "meta": {"billed_units": {"search_units": int}}}
    return indexes_in_range(exchanges[-1], go(ok(exchanges[-1]).answer, shape)["results"])


@reads("ragflow-go-nvidia")
def ragflow_go_nvidia(exchanges: Sequence[Exchange]) -> Scores:
    parsed = go(ok(exchanges[-1]).answer, {"rankings": [{"index": int, "logit": float}]})
    return indexes_in_range(exchanges[-1], parsed["rankings"], "logit")
