"""Voyage's own SDK."""

from __future__ import annotations

import voyageai

from harness import (
    BEIJING,
    DOCUMENTS,
    GRAVITY,
    QUERY,
    SENTENCE,
    Server,
    case,
    eq,
    main,
    ranked,
    refused,
)

DIALECT = "Voyage"
# Voyage's own base URL ends in /v1, and the SDK adds /rerank.
BASE = "/voyage/v1"


def sync(server: Server) -> voyageai.Client:
    return voyageai.Client(api_key="any", base_url=server.url + BASE)


def check(answer: voyageai.object.RerankingObject, count: int = len(DOCUMENTS)) -> None:
    ranked(
        [result.index for result in answer.results],
        [result.relevance_score for result in answer.results],
        count,
    )
    eq(answer.results[0].document, BEIJING)
    assert answer.total_tokens > 0, answer.total_tokens


@case("voyageai.Client", "voyageai", DIALECT)
def ranks(server: Server) -> None:
    check(sync(server).rerank(QUERY, DOCUMENTS, model="rerank-2.5"))


@case("voyageai.Client", "voyageai", DIALECT)
def every_field(server: Server) -> None:
    check(sync(server).rerank(QUERY, DOCUMENTS, model="rerank-2.5", top_k=2, truncation=False), 2)


@case("voyageai.Client", "voyageai", DIALECT)
def top_k_above_the_count(server: Server) -> None:
    check(sync(server).rerank(QUERY, DOCUMENTS, model="rerank-2.5", top_k=50))


@case("voyageai.Client", "voyageai", DIALECT)
def without_the_prefix(server: Server) -> None:
    """The SDK always sends `truncation`, so `/v1/rerank` recognises its body."""
    client = voyageai.Client(api_key="any", base_url=server.url + "/v1")

    check(client.rerank(QUERY, DOCUMENTS, model="rerank-2.5"))


@case("voyageai.Client", "voyageai", DIALECT)
def bad_request(server: Server) -> None:
    with (
        server.watched() as wire,
        refused(voyageai.error.InvalidRequestError, SENTENCE),
    ):
        voyageai.Client(api_key="any", base_url=wire.url + BASE, max_retries=3).rerank(
            "", DOCUMENTS, model="rerank-2.5"
        )
    eq(wire.requests, [f"POST {BASE}/rerank"])


@case("voyageai.Client", "voyageai", DIALECT)
def right_key(server: Server) -> None:
    client = voyageai.Client(api_key=server.key, base_url=server.keyed + BASE)

    check(client.rerank(QUERY, DOCUMENTS, model="rerank-2.5"))


@case("voyageai.Client", "voyageai", DIALECT)
def wrong_key(server: Server) -> None:
    client = voyageai.Client(api_key="wrong", base_url=server.keyed + BASE)

    with refused(voyageai.error.AuthenticationError, "invalid api token"):
        client.rerank(QUERY, DOCUMENTS, model="rerank-2.5")


@case("voyageai.AsyncClient", "voyageai", DIALECT)
async def ranks_async(server: Server) -> None:
    client = voyageai.AsyncClient(api_key="any", base_url=server.url + BASE)

    check(await client.rerank(QUERY, DOCUMENTS, model="rerank-2.5", top_k=2), 2)


@case("voyageai.AsyncClient", "voyageai", DIALECT)
async def bad_request_async(server: Server) -> None:
    client = voyageai.AsyncClient(api_key="any", base_url=server.url + BASE)

    with refused(voyageai.error.InvalidRequestError, SENTENCE):
        await client.rerank("", [GRAVITY], model="rerank-2.5")


if __name__ == "__main__":
    main()
