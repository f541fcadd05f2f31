"""Haystack's rankers: Cohere, Jina, vLLM and TEI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cohere
from haystack import Document
from haystack.utils import Secret
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker
from haystack_integrations.components.rankers.jina import JinaRanker
from haystack_integrations.components.rankers.vllm import VLLMRanker

from harness import (
    BEIJING,
    DOCUMENTS,
    MODEL,
    QUERY,
    SENTENCE,
    Server,
    case,
    each,
    eq,
    main,
    ranked,
    ranked_texts,
    refused,
)

Make = Callable[..., Any]


def cohere_ranker(url: str, key: str = "any", **more: Any) -> Any:
    return CohereRanker(model=MODEL, api_base_url=url, api_key=Secret.from_token(key), **more)


def jina_ranker(url: str, key: str = "any", **more: Any) -> Any:
    # `base_url` is the whole URL.
    return JinaRanker(
        model=MODEL, base_url=f"{url}/v1/rerank", api_key=Secret.from_token(key), **more
    )


def vllm_ranker(url: str, key: str = "any", **more: Any) -> Any:
    return VLLMRanker(model=MODEL, api_base_url=f"{url}/v1", api_key=Secret.from_token(key), **more)


def tei_ranker(url: str, key: str = "any", **more: Any) -> Any:
    return HuggingFaceTEIRanker(url=url, token=Secret.from_token(key), **more)


def run(ranker: Any, query: str = QUERY) -> list[Document]:
    ranker.warm_up() if hasattr(ranker, "warm_up") else None
    return ranker.run(query=query, documents=[Document(content=text) for text in DOCUMENTS])[
        "documents"
    ]


def check(documents: list[Document], count: int = len(DOCUMENTS)) -> None:
    ranked_texts([document.content for document in documents], count)
    ranked(
        [DOCUMENTS.index(document.content) for document in documents],
        [document.score for document in documents],
        count,
    )


def cases(make: Make, error: type[BaseException], path: str) -> dict[str, Callable[[Server], Any]]:
    def ranks(server: Server) -> None:
        with server.watched() as wire:
            check(run(make(wire.url)))
        eq(wire.requests, [f"POST {path}"])

    def top_k(server: Server) -> None:
        check(run(make(server.url, top_k=2)), 2)

    def top_k_above_the_count(server: Server) -> None:
        check(run(make(server.url, top_k=50)))

    def bad_request(server: Server) -> None:
        with server.watched() as wire, refused(error, SENTENCE):
            run(make(wire.url), query=" ")
        eq(len(wire.requests), 1, "requests")

    def right_key(server: Server) -> None:
        check(run(make(server.keyed, server.key)))

    def wrong_key(server: Server) -> None:
        with server.watched(keyed=True) as wire, refused(Exception, "invalid api token"):
            run(make(wire.url, "wrong"))
        eq(len(wire.requests), 1, "requests")

    functions = [ranks, top_k, top_k_above_the_count, bad_request, right_key, wrong_key]
    return {run.__name__: run for run in functions}


each(
    "haystack CohereRanker",
    "cohere-haystack",
    "Cohere v2",
    **cases(cohere_ranker, cohere.BadRequestError, "/v2/rerank"),
)
each(
    "haystack JinaRanker",
    "jina-haystack",
    "Jina",
    **cases(jina_ranker, RuntimeError, "/v1/rerank"),
)
each(
    "haystack VLLMRanker",
    "vllm-haystack",
    "vLLM",
    **cases(vllm_ranker, Exception, "/v1/rerank"),
)
each(
    "haystack HuggingFaceTEIRanker",
    "huggingface-api-haystack",
    "TEI",
    **cases(tei_ranker, Exception, "/rerank"),
)


@case("haystack JinaRanker", "jina-haystack", "Jina")
def says_the_model_and_the_usage(server: Server) -> None:
    documents = [Document(content=text) for text in DOCUMENTS]

    meta = jina_ranker(server.url).run(query=QUERY, documents=documents)["meta"]

    eq(meta["model"], MODEL)
    assert meta["usage"]["total_tokens"] > 0


@case("haystack HuggingFaceTEIRanker", "huggingface-api-haystack", "TEI")
def raw_scores(server: Server) -> None:
    documents = run(tei_ranker(server.url, raw_scores=True))

    eq(documents[0].content, BEIJING)
    assert documents[-1].score < 0, documents


@case("haystack HuggingFaceTEIRanker", "huggingface-api-haystack", "TEI")
async def ranks_async(server: Server) -> None:
    ranker = tei_ranker(server.url)
    found = await ranker.run_async(
        query=QUERY, documents=[Document(content=text) for text in DOCUMENTS]
    )

    check(found["documents"])


if __name__ == "__main__":
    main()
