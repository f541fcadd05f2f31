"""LiteLLM with every provider that has a configurable base URL."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import litellm

from harness import (
    BEIJING,
    DOCUMENTS,
    QUERY,
    SENTENCE,
    Server,
    case,
    each,
    eq,
    main,
    ranked,
    refused,
)
from litellm_providers import PROVIDERS, Provider

# litellm up to 1.83 raises APIConnectionError for every 4xx, with the server's message.
OLD = version("litellm").startswith("1.83")


def text(document: Any) -> str:
    return document if isinstance(document, str) else document["text"]


def check(answer: Any, provider: Provider, count: int = len(DOCUMENTS)) -> None:
    results = answer.results
    scores = [result["relevance_score"] for result in results]
    if provider.dialect == "NVIDIA":
        # Logits: 0 corresponds to a probability of 0.5.
        eq(results[0]["index"], 1)
        eq(scores, sorted(scores, reverse=True))
        eq(len(scores), count)
        assert scores[0] > 0, scores
        assert all(score < 0 for score in scores[1:]), scores
    else:
        ranked([result["index"] for result in results], scores, count)


def arguments(provider: Provider, url: str, **more: Any) -> dict[str, Any]:
    return {
        "model": provider.model,
        "query": QUERY,
        "documents": DOCUMENTS,
        "api_base": url + provider.base,
        "api_key": "any",
        **more,
    }


def cases(provider: Provider) -> dict[str, Callable[[Server], Any]]:
    def ranks(server: Server) -> None:
        with server.watched() as wire:
            check(litellm.rerank(**arguments(provider, wire.url)), provider)
        eq(wire.requests, [f"POST {provider.path}"])

    def with_documents(server: Server) -> None:
        answer = litellm.rerank(**arguments(provider, server.url, return_documents=True))
        check(answer, provider)
        eq(text(answer.results[0]["document"]), BEIJING)

    def top_n(server: Server) -> None:
        answer = litellm.rerank(**arguments(provider, server.url, top_n=2))
        check(answer, provider, 2)

    def top_n_above_the_count(server: Server) -> None:
        check(litellm.rerank(**arguments(provider, server.url, top_n=50)), provider)

    def without_documents(server: Server) -> None:
        answer = litellm.rerank(**arguments(provider, server.url, return_documents=False))
        check(answer, provider)

    async def ranks_async(server: Server) -> None:
        check(await litellm.arerank(**arguments(provider, server.url, top_n=2)), provider, 2)

    def bad_request(server: Server) -> None:
        with server.watched() as wire, refused(Exception, SENTENCE) as caught:
            litellm.rerank(**arguments(provider, wire.url, query=""))
        kind = type(caught[0])
        assert kind.__module__.startswith("litellm"), kind
        eq(len(wire.requests), 1, "requests")
        if not OLD:
            eq(getattr(caught[0], "status_code", None), 400)

    def right_key(server: Server) -> None:
        check(litellm.rerank(**arguments(provider, server.keyed, api_key=server.key)), provider)

    def wrong_key(server: Server) -> None:
        kind = litellm.APIConnectionError if OLD else litellm.AuthenticationError
        with refused(kind, "invalid api token"):
            litellm.rerank(**arguments(provider, server.keyed, api_key="wrong"))

    functions = [
        ranks,
        top_n,
        top_n_above_the_count,
        ranks_async,
        bad_request,
        right_key,
        wrong_key,
    ]
    if provider.documents:
        functions += [with_documents, without_documents]
    return {run.__name__: run for run in functions}


COHERE = PROVIDERS[0]


@case("litellm cohere/", "litellm", "Cohere v1")
def every_field(server: Server) -> None:
    """With `max_chunks_per_doc`, LiteLLM uses Cohere's version 1."""
    more = {"rank_fields": ["text"], "max_chunks_per_doc": 10, "top_n": 2}
    documents = [{"text": document} for document in DOCUMENTS]
    with server.watched() as wire:
        answer = litellm.rerank(**arguments(COHERE, wire.url, documents=documents, **more))
    check(answer, COHERE, 2)
    eq(wire.requests, ["POST /v1/rerank"])


@case("litellm cohere/", "litellm", "Cohere v2")
def max_tokens_per_doc(server: Server) -> None:
    check(litellm.rerank(**arguments(COHERE, server.url, max_tokens_per_doc=512)), COHERE)


@case("litellm hosted_vllm/", "litellm", "vLLM")
def base_that_ends_in_v1(server: Server) -> None:
    vllm = next(provider for provider in PROVIDERS if provider.name == "hosted_vllm")

    check(litellm.rerank(**arguments(vllm, f"{server.url}/v1")), vllm)


for provider in PROVIDERS:
    each(f"litellm {provider.name}/", "litellm", provider.dialect, **cases(provider))


if __name__ == "__main__":
    main()
