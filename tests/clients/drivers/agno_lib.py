"""Agno's rerankers. They catch every error and keep the order, so the cases check the order."""

from __future__ import annotations

from typing import Any

import cohere
from agno.knowledge.document import Document
from agno.knowledge.reranker.cohere import CohereReranker

from harness import DOCUMENTS, QUERY, Server, case, eq, main, ranked

try:
    from agno.knowledge.reranker.infinity import InfinityReranker
except ImportError:
    # The newest Agno and infinity-client need different versions of httpx.
    InfinityReranker = None

CLIENT, PACKAGE = "agno CohereReranker", "agno"


def rank(reranker: Any, query: str = QUERY) -> list[Document]:
    return reranker.rerank(query, [Document(content=text) for text in DOCUMENTS])


def check(documents: list[Document], count: int = len(DOCUMENTS)) -> None:
    ranked(
        [DOCUMENTS.index(document.content) for document in documents],
        [document.reranking_score for document in documents],
        count,
    )


def by_cohere(url: str, key: str = "any", **more: Any) -> CohereReranker:
    return CohereReranker(cohere_client=cohere.Client(api_key=key, base_url=url), **more)


@case(CLIENT, PACKAGE, "Cohere v1")
def ranks(server: Server) -> None:
    with server.watched() as wire:
        check(rank(by_cohere(wire.url)))
    eq(wire.requests, ["POST /v1/rerank"])


@case(CLIENT, PACKAGE, "Cohere v1")
def top_n(server: Server) -> None:
    check(rank(by_cohere(server.url, top_n=2)), 2)


@case(CLIENT, PACKAGE, "Cohere v1")
def bad_request(server: Server) -> None:
    with server.watched() as wire:
        eq([document.content for document in rank(by_cohere(wire.url), "")], DOCUMENTS)
    eq(len(wire.requests), 1, "requests")


@case(CLIENT, PACKAGE, "Cohere v1")
def right_key(server: Server) -> None:
    check(rank(by_cohere(server.keyed, server.key)))


if InfinityReranker:

    @case("agno InfinityReranker", PACKAGE, "Infinity")
    def ranks_with_infinity(server: Server) -> None:
        with server.watched() as wire:
            check(rank(InfinityReranker(url=wire.url)))
        eq(wire.requests, ["POST /rerank"])

    @case("agno InfinityReranker", PACKAGE, "Infinity")
    def top_n_with_infinity(server: Server) -> None:
        check(rank(InfinityReranker(url=server.url, top_n=2)), 2)

    @case("agno InfinityReranker", PACKAGE, "Infinity")
    def right_key_with_infinity(server: Server) -> None:
        check(rank(InfinityReranker(url=server.keyed, api_key=server.key)))

    @case("agno InfinityReranker", PACKAGE, "Infinity")
    def bad_request_with_infinity(server: Server) -> None:
        with server.watched() as wire:
            eq(
                [document.content for document in rank(InfinityReranker(url=wire.url), "")],
                DOCUMENTS,
            )
        eq(len(wire.requests), 1, "requests")


if __name__ == "__main__":
    main()
