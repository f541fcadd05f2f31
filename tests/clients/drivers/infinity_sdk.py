"""Infinity's generated client."""

from __future__ import annotations

from typing import Any

from infinity_client import AuthenticatedClient, Client
from infinity_client.api.default import health, models, rerank
from infinity_client.errors import UnexpectedStatus
from infinity_client.models import RerankInput

from harness import (
    BEIJING,
    DOCUMENTS,
    MODEL,
    QUERY,
    SENTENCE,
    Server,
    case,
    eq,
    main,
    ranked,
    refused,
)

CLIENT, PACKAGE, DIALECT = "infinity_client", "infinity-client", "Infinity"


def check(answer: Any, count: int = len(DOCUMENTS)) -> None:
    results = answer.results
    ranked(
        [result.index for result in results], [result.relevance_score for result in results], count
    )
    assert answer.usage.total_tokens >= answer.usage.prompt_tokens > 0


def body(**more: Any) -> RerankInput:
    return RerankInput(**{"query": QUERY, "documents": DOCUMENTS} | more)


@case(CLIENT, PACKAGE, DIALECT)
def ranks(server: Server) -> None:
    with server.watched() as wire:
        check(rerank.sync(client=Client(base_url=wire.url), body=body()))
    eq(wire.requests, ["POST /rerank"])


@case(CLIENT, PACKAGE, DIALECT)
def every_field(server: Server) -> None:
    answer = rerank.sync(
        client=Client(base_url=f"{server.url}/infinity"),
        body=body(model=MODEL, top_n=2, return_documents=True, raw_scores=False),
    )

    check(answer, 2)
    eq(answer.model, MODEL)
    eq(answer.results[0].document, BEIJING)


@case(CLIENT, PACKAGE, DIALECT)
def raw_scores(server: Server) -> None:
    answer = rerank.sync(
        client=Client(base_url=f"{server.url}/infinity"), body=body(raw_scores=True)
    )

    scores = [result.relevance_score for result in answer.results]
    assert scores[0] > 1, scores
    assert scores[-1] < 0, scores


@case(CLIENT, PACKAGE, DIALECT)
async def ranks_async(server: Server) -> None:
    check(
        await rerank.asyncio(client=Client(base_url=f"{server.url}/infinity"), body=body(top_n=50))
    )


@case(CLIENT, PACKAGE, DIALECT)
def bad_request(server: Server) -> None:
    with server.watched() as wire, refused(UnexpectedStatus, SENTENCE):
        rerank.sync(
            client=Client(base_url=wire.url, raise_on_unexpected_status=True), body=body(query="")
        )
    eq(len(wire.requests), 1, "requests")


@case(CLIENT, PACKAGE, DIALECT)
def lists_models(server: Server) -> None:
    client = Client(base_url=f"{server.url}/infinity")

    [model] = models.sync(client=client).data
    eq(model.owned_by.value, "infinity")
    assert model.stats.additional_properties["batch_size"] > 0
    assert health.sync(client=client).additional_properties["unix"] > 0


@case(CLIENT, PACKAGE, DIALECT)
def right_key(server: Server) -> None:
    client = AuthenticatedClient(base_url=server.keyed, token=server.key)

    check(rerank.sync(client=client, body=body()))


@case(CLIENT, PACKAGE, DIALECT)
def wrong_key(server: Server) -> None:
    client = AuthenticatedClient(
        base_url=server.keyed, token="wrong", raise_on_unexpected_status=True
    )

    with refused(UnexpectedStatus, "invalid api token"):
        rerank.sync(client=client, body=body())


if __name__ == "__main__":
    main()
