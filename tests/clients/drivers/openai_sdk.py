"""OpenAI's SDK: lists models, and posts to `/rerank`."""

from __future__ import annotations

from typing import Any

import openai

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

CLIENT, PACKAGE, DIALECT = "openai.OpenAI", "openai", "Cohere v1"


def sync(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="any")


def body(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "query": QUERY, "documents": DOCUMENTS, **more}


def check(answer: Any, count: int = len(DOCUMENTS)) -> None:
    results = answer["results"]
    ranked(
        [result["index"] for result in results],
        [result["relevance_score"] for result in results],
        count,
    )


@case(CLIENT, PACKAGE, DIALECT)
def ranks(server: Server) -> None:
    answer = sync(server).post("/rerank", body=body(), cast_to=object)

    check(answer)
    eq(answer["results"][0]["document"]["text"], BEIJING)


@case(CLIENT, PACKAGE, DIALECT)
def lists_models(server: Server) -> None:
    models = sync(server).models.list().data

    assert models
    eq(sync(server).models.retrieve(models[0].id).id, models[0].id)


@case(CLIENT, PACKAGE, DIALECT)
def bad_request(server: Server) -> None:
    with server.watched() as wire, refused(openai.BadRequestError, SENTENCE) as caught:
        openai.OpenAI(base_url=wire.url + "/v1", api_key="any").post(
            "/rerank", body=body(query=""), cast_to=object
        )
    eq(caught[0].body["message"], SENTENCE)
    eq(wire.requests, ["POST /v1/rerank"])


@case(CLIENT, PACKAGE, DIALECT)
def right_key(server: Server) -> None:
    client = openai.OpenAI(base_url=server.keyed + "/v1", api_key=server.key)

    check(client.post("/rerank", body=body(top_n=2), cast_to=object), 2)


@case(CLIENT, PACKAGE, DIALECT)
def wrong_key(server: Server) -> None:
    client = openai.OpenAI(base_url=server.keyed + "/v1", api_key="wrong")

    with refused(openai.AuthenticationError, "invalid api token"):
        client.post("/rerank", body=body(), cast_to=object)


@case("openai.AsyncOpenAI", PACKAGE, DIALECT)
async def ranks_async(server: Server) -> None:
    async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="any") as client:
        check(await client.post("/rerank", body=body(), cast_to=object))


if __name__ == "__main__":
    main()
