"""Mixedbread's own SDK."""

from __future__ import annotations

from typing import Any

import mixedbread

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

CLIENT, PACKAGE, DIALECT = "mixedbread.Mixedbread", "mixedbread", "Mixedbread"


def check(answer: Any, count: int = len(DOCUMENTS)) -> None:
    ranked(
        [result.index for result in answer.data], [result.score for result in answer.data], count
    )
    eq(answer.model, MODEL)
    assert answer.usage.total_tokens > 0


@case(CLIENT, PACKAGE, DIALECT)
def ranks(server: Server) -> None:
    with server.watched() as wire:
        client = mixedbread.Mixedbread(api_key="any", base_url=wire.url)
        check(client.rerank(model=MODEL, query=QUERY, input=DOCUMENTS))
    eq(wire.requests, ["POST /v1/reranking"])


@case(CLIENT, PACKAGE, DIALECT)
def every_field(server: Server) -> None:
    client = mixedbread.Mixedbread(api_key="any", base_url=server.url)

    answer = client.rerank(
        model=MODEL, query=QUERY, input=DOCUMENTS, top_k=2, return_input=True, rewrite_query=False
    )

    check(answer, 2)
    eq(answer.data[0].input, BEIJING)
    eq((answer.top_k, answer.return_input), (2, True))


@case(CLIENT, PACKAGE, DIALECT)
def without_input(server: Server) -> None:
    client = mixedbread.Mixedbread(api_key="any", base_url=server.url)

    answer = client.rerank(model=MODEL, query=QUERY, input=DOCUMENTS, top_k=50, return_input=False)

    check(answer)
    eq([result.input for result in answer.data], [None, None, None])


@case(CLIENT, PACKAGE, DIALECT)
def objects_with_fields(server: Server) -> None:
    client = mixedbread.Mixedbread(api_key="any", base_url=server.url)

    answer = client.rerank(
        model=MODEL,
        query=QUERY,
        input=[{"title": "A fact", "text": text} for text in DOCUMENTS],
        rank_fields=["text"],
    )

    check(answer)


@case(CLIENT, PACKAGE, DIALECT)
def bad_request(server: Server) -> None:
    with server.watched() as wire, refused(mixedbread.BadRequestError, SENTENCE):
        client = mixedbread.Mixedbread(api_key="any", base_url=wire.url)
        client.rerank(model=MODEL, query="", input=DOCUMENTS)
    eq(len(wire.requests), 1, "requests")


@case(CLIENT, PACKAGE, DIALECT)
def right_key(server: Server) -> None:
    client = mixedbread.Mixedbread(api_key=server.key, base_url=server.keyed)

    check(client.rerank(model=MODEL, query=QUERY, input=DOCUMENTS))


@case(CLIENT, PACKAGE, DIALECT)
def wrong_key(server: Server) -> None:
    client = mixedbread.Mixedbread(api_key="wrong", base_url=server.keyed)

    with refused(mixedbread.AuthenticationError, "invalid api token"):
        client.rerank(model=MODEL, query=QUERY, input=DOCUMENTS)


@case("mixedbread.AsyncMixedbread", PACKAGE, DIALECT)
async def ranks_async(server: Server) -> None:
    async with mixedbread.AsyncMixedbread(api_key="any", base_url=server.url) as client:
        check(await client.rerank(model=MODEL, query=QUERY, input=DOCUMENTS))


if __name__ == "__main__":
    main()
