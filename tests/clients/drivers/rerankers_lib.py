"""AnswerDotAI's rerankers with every provider that accepts a URL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rerankers import Reranker

from harness import DOCUMENTS, MODEL, QUERY, Server, each, eq, main, ranked, refused

# By provider: the dialect and the path; the client takes the whole URL.
PROVIDERS = {
    "cohere": ("Cohere v1", "/v1/rerank"),
    "jina": ("Jina", "/v1/rerank"),
    "voyage": ("Voyage", "/voyage/v1/rerank"),
    "mixedbread.ai": ("Mixedbread", "/v1/reranking"),
    "text-embeddings-inference": ("TEI", "/rerank"),
}


def ranker(provider: str, url: str, key: str = "any") -> Any:
    return Reranker(
        MODEL, model_type="APIRanker", api_provider=provider, api_key=key, url=url, verbose=0
    )


def check(answer: Any) -> None:
    ranked(
        [result.doc_id for result in answer.results], [result.score for result in answer.results]
    )


def cases(provider: str, path: str) -> dict[str, Callable[[Server], Any]]:
    def ranks(server: Server) -> None:
        with server.watched() as wire:
            check(ranker(provider, wire.url + path).rank(QUERY, DOCUMENTS))
        eq(wire.requests, [f"POST {path}"])

    async def ranks_async(server: Server) -> None:
        check(await ranker(provider, server.url + path).rank_async(QUERY, DOCUMENTS))

    def bad_request(server: Server) -> None:
        """The client ignores the status, so it raises for a missing field."""
        with server.watched() as wire, refused((KeyError, TypeError)):
            ranker(provider, wire.url + path).rank("", DOCUMENTS)
        eq(len(wire.requests), 1, "requests")

    def right_key(server: Server) -> None:
        check(ranker(provider, server.keyed + path, server.key).rank(QUERY, DOCUMENTS))

    return {run.__name__: run for run in [ranks, ranks_async, bad_request, right_key]}


for name, (dialect, path) in PROVIDERS.items():
    each(f"rerankers {name}", "rerankers", dialect, **cases(name, path))


if __name__ == "__main__":
    main()
