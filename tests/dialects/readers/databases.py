"""Vector databases and search engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from readers.base import (
    Exchange,
    Scores,
    best_first,
    go,
    integer,
    json_smart,
    number,
    ok,
    reads,
    reads_errors,
    scores_by_index,
)


@reads("milvus-vllm")
def milvus_vllm(exchanges: Sequence[Exchange]) -> Scores:
    shape = {
        "id": str,
        "model": str,
        "usage": {"total_tokens": int},
        "results": [{"index": int, "relevance_score": float}],
    }
    return _in_request_order(exchanges, go(ok(exchanges[-1]).answer, shape)["results"])


@reads("milvus-tei")
def milvus_tei(exchanges: Sequence[Exchange]) -> Scores:
    parsed = go(ok(exchanges[-1]).answer, [{"index": int, "score": float}])
    return _in_request_order(exchanges, parsed, "score")


@reads("milvus-cohere")
def milvus_cohere(exchanges: Sequence[Exchange]) -> Scores:
    shape = {
        "id": str,
        "results": [{"index": int, "relevance_score": float}],
        "meta": {
            "api_version": {"version": str, "is_experimental": bool},
            "billed_units": {"search_units": int},
        },
    }
    return _in_request_order(exchanges, go(ok(exchanges[-1]).answer, shape)["results"])


@reads("milvus-siliconflow")
def milvus_siliconflow(exchanges: Sequence[Exchange]) -> Scores:
    shape = {
        "id": str,
        "results": [{"index": int, "relevance_score": float}],
        "meta": {
            "billed_units": {
                "input_tokens": int,
                "output_tokens": int,
                "search_units": int,
                "classifications": int,
            },
            "tokens": {"input_tokens": int, "output_tokens": int},
        },
    }
    return _in_request_order(exchanges, go(ok(exchanges[-1]).answer, shape)["results"])


@reads("milvus-voyageai")
def milvus_voyageai(exchanges: Sequence[Exchange]) -> Scores:
    shape = {
        "object": str,
        "data": [{"index": int, "relevance_score": float}],
        "model": str,
        "usage": {"total_tokens": int},
    }
    return _in_request_order(exchanges, go(ok(exchanges[-1]).answer, shape)["data"])


@reads("milvus-sglang")
def milvus_sglang(exchanges: Sequence[Exchange]) -> Scores:
    """Go pointers: a missing index or score is an error, not zero."""
    answer = ok(exchanges[-1]).answer
    parsed = go(answer, [{"index": int, "score": float}])
    assert all(item["index"] is not None and item["score"] is not None for item in answer)
    return _in_request_order(exchanges, parsed, "score")


def _in_request_order(
    exchanges: Sequence[Exchange],
    items: Sequence[Mapping[str, Any]],
    score: str = "relevance_score",
) -> Scores:
    """Sorted by index; the n-th score is that of the n-th document."""
    ranked = sorted(items, key=lambda item: item["index"])
    assert len(ranked) == len(exchanges[-1].documents), "a document is missing"
    return dict(enumerate(number(item[score]) for item in ranked))


@reads("weaviate-transformers")
def weaviate_transformers(exchanges: Sequence[Exchange]) -> Scores:
    """Starts only if the server is ready; reads the scores in the order of the answer."""
    ready, meta, last = exchanges
    assert 200 <= ready.status <= 299
    assert isinstance(ok(meta).answer, dict)
    answer = go(ok(last).answer, WEAVIATE_RANKING)
    assert [item["document"] for item in answer["scores"]] == last.documents
    return dict(enumerate(item["score"] for item in answer["scores"]))


WEAVIATE_RANKING = {
    "query": str,
    "scores": [{"document": str, "score": float}],
    "property": str,
    "score": float,
    "error": str,
}


@reads_errors("weaviate-transformers")
def weaviate_error(exchange: Exchange) -> str:
    """Decodes the answer before it checks the status."""
    return str(go(exchange.answer, WEAVIATE_RANKING)["error"])


@reads("weaviate-cohere")
def weaviate_cohere(exchanges: Sequence[Exchange]) -> Scores:
    shape = {
        "id": str,
        "results": [{"index": int, "relevance_score": float, "document": {"text": str}}],
        "meta": {"api_version": {"version": str}},
    }
    return _slots(exchanges, go(ok(exchanges[-1]).answer, shape)["results"])


@reads("weaviate-voyageai")
def weaviate_voyageai(exchanges: Sequence[Exchange]) -> Scores:
    shape = {
        "id": str,
        "data": [{"index": int, "relevance_score": float, "document": {"text": str}}],
        "usage": {"total_tokens": int},
    }
    return _slots(exchanges, go(ok(exchanges[-1]).answer, shape)["data"])


@reads_errors(
    "weaviate-cohere", "weaviate-voyageai", "elasticsearch-cohere", "astra-data-api-nvidia"
)
def message(exchange: Exchange) -> str:
    return str(go(exchange.answer, {"message": str})["message"])


@reads("weaviate-nvidia")
def weaviate_nvidia(exchanges: Sequence[Exchange]) -> Scores:
    answer = go(ok(exchanges[-1]).answer, {"rankings": [{"index": int, "logit": float}]})
    return _slots(exchanges, answer["rankings"], "logit")


def _slots(
    exchanges: Sequence[Exchange],
    items: Sequence[Mapping[str, Any]],
    score: str = "relevance_score",
) -> Scores:
    """An array as long as `results`, filled by index: a higher index is a panic."""
    slots: list[float | None] = [None] * len(items)
    for item in items:
        slots[item["index"]] = item[score]
    assert len(slots) == len(exchanges[-1].documents)
    return {index: score for index, score in enumerate(slots) if score is not None}


@reads("astra-data-api-nvidia")
def astra(exchanges: Sequence[Exchange]) -> Scores:
    """Calls `resp.usage().prompt_tokens()` without a check for null."""
    answer = ok(exchanges[-1]).answer
    assert integer(answer["usage"]["prompt_tokens"]) > 0
    assert integer(answer["usage"]["total_tokens"]) > 0
    return scores_by_index(answer["rankings"], "logit")


@reads("opensearch-cohere")
def opensearch(exchanges: Sequence[Exchange]) -> Scores:
    """Casts `(Integer) index` and `(Double) relevance_score`; a cast converts nothing."""
    results = json_smart(ok(exchanges[-1]).text)["results"]
    assert "index" in results[0]
    assert "relevance_score" in results[0]
    scores: list[float] = [0.0] * len(results)
    for result in results:
        assert type(result["index"]) is int
        assert type(result["relevance_score"]) is float, result["relevance_score"]
        scores[result["index"]] = result["relevance_score"]
    assert len(scores) == len(exchanges[-1].documents)
    return dict(enumerate(scores))


@reads("elasticsearch-cohere")
def elasticsearch_cohere(exchanges: Sequence[Exchange]) -> Scores:
    """Searches `results` until the first object ends; allows three fields per result."""
    answer = ok(exchanges[-1]).answer
    for name, value in answer.items():
        if name == "results":
            break
        assert not isinstance(value, dict), f"{name} ends an object before results"
    for result in answer["results"]:
        assert set(result) <= {"index", "relevance_score", "document"}, sorted(result)
        if "document" in result:
            assert isinstance(result["document"]["text"], str)
            assert not any(isinstance(value, dict) for value in result["document"].values())
    return best_first(scores_by_index(answer["results"]))


@reads("elasticsearch-jinaai")
def elasticsearch_jinaai(exchanges: Sequence[Exchange]) -> Scores:
    answer = ok(exchanges[-1]).answer
    for result in answer["results"]:
        match result.get("document", ""):
            case str() | {"text": str()}:
                pass
            case other:
                raise AssertionError(f"expected an object or string for document, got {other!r}")
    return best_first(scores_by_index(answer["results"]))


@reads_errors("elasticsearch-jinaai")
def jina_detail(exchange: Exchange) -> str:
    assert isinstance(exchange.answer["detail"], str)
    return str(exchange.answer["detail"])
