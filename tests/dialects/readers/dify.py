"""Dify's model providers."""

from __future__ import annotations

from collections.abc import Sequence

from readers.base import (
    Exchange,
    Scores,
    best_first,
    integer,
    ok,
    reads,
    reads_errors,
    scores_by_index,
    xinference_client,
)


@reads(
    "dify-openai_api_compatible",
    "dify-openai_api_compatible-keyless",
    "dify-openai_api_compatible-multimodal",
)
def dify_openai(exchanges: Sequence[Exchange]) -> Scores:
    """A missing field is read as index 0 or score 0.0, without an error."""
    last = ok(exchanges[-1])
    scores: Scores = {}
    for item in last.answer.get("results", []):
        index = item.get("index", 0)
        if index < len(last.documents):
            scores[index] = item.get("relevance_score", 0.0)
    return scores


@reads("dify-localai", "dify-gpustack")
def dify_localai(exchanges: Sequence[Exchange]) -> Scores:
    last = ok(exchanges[-1])
    results = last.answer["results"]
    for result in results:
        if "document" in result:
            assert result["document"]["text"] == last.documents[result["index"]]
    return scores_by_index(results)


@reads("dify-jina", "dify-jina-m0")
def dify_jina(exchanges: Sequence[Exchange]) -> Scores:
    return best_first(scores_by_index(ok(exchanges[-1]).answer["results"]))


@reads("dify-siliconflow", "dify-cohere")
def dify_documents(exchanges: Sequence[Exchange]) -> Scores:
    """Shows the text in the answer, not its own."""
    last = ok(exchanges[-1])
    for result in last.answer["results"]:
        assert result["document"]["text"] == last.documents[result["index"]]
    return best_first(scores_by_index(last.answer["results"]))


@reads("dify-huggingface_tei")
def dify_tei(exchanges: Sequence[Exchange]) -> Scores:
    info, last = (ok(exchange) for exchange in exchanges)
    assert next(iter(info.answer["model_type"].keys())) == "reranker"
    assert integer(info.answer["max_input_length"]) > 0
    for result in last.answer:
        assert result["text"] == last.documents[result["index"]]
    return best_first(scores_by_index(last.answer, "score"))


@reads("dify-xinference")
def dify_xinference(exchanges: Sequence[Exchange]) -> Scores:
    last = xinference_client(exchanges)
    for result in last.answer["results"]:
        document = result["document"]
        text = document if isinstance(document, str) else document["text"]
        assert text == last.documents[result["index"]]
    return scores_by_index(last.answer["results"])


@reads_errors("dify-xinference", "maxkb-xinference")
def xinference_detail(exchange: Exchange) -> str:
    return str(exchange.answer["detail"])


@reads("dify-voyage")
def dify_voyage(exchanges: Sequence[Exchange]) -> Scores:
    last = ok(exchanges[-1])
    for item in last.answer["data"]:
        assert item["document"] == last.documents[item["index"]]
    return best_first(scores_by_index(last.answer["data"]))
