"""OpenRouter's own SDK."""

from __future__ import annotations

from typing import Any

from openrouter import OpenRouter, errors

from harness import BEIJING, DOCUMENTS, QUERY, SENTENCE, Server, case, eq, main, ranked, refused

CLIENT, PACKAGE, DIALECT = "openrouter.OpenRouter", "openrouter", "OpenRouter"
MODEL = "qwen/qwen3-reranker-0.6b"


def rerank(url: str, key: str = "any", **more: Any) -> Any:
    with OpenRouter(api_key=key, server_url=f"{url}/openrouter/v1") as client:
        fields = {"model": MODEL, "query": QUERY, "documents": DOCUMENTS, **more}
        return client.rerank.rerank(**fields)


def check(answer: Any, count: int = len(DOCUMENTS)) -> None:
    scores = [result.relevance_score for result in answer.results]
    ranked([result.index for result in answer.results], scores, count)
    eq(answer.results[0].document.text, BEIJING)
    eq(answer.model, MODEL)
    assert answer.usage.total_tokens > 0
    eq(answer.usage.search_units, 1)


@case(CLIENT, PACKAGE, DIALECT)
def ranks(server: Server) -> None:
    with server.watched() as wire:
        check(rerank(wire.url))
    eq(wire.requests, ["POST /openrouter/v1/rerank"])


@case(CLIENT, PACKAGE, DIALECT)
def every_field(server: Server) -> None:
    answer = rerank(
        server.url,
        documents=[{"text": document} for document in DOCUMENTS],
        top_n=2,
        provider={"allow_fallbacks": False},
        session_id="a-session",
        user="someone",
    )

    check(answer, 2)


@case(CLIENT, PACKAGE, DIALECT)
def a_picture(server: Server) -> None:
    with refused(errors.BadRequestResponseError, "documents[0] holds a picture"):
        rerank(server.url, documents=[{"text": "a", "image": "https://example.com/a.png"}])


@case(CLIENT, PACKAGE, DIALECT)
def bad_request(server: Server) -> None:
    with server.watched() as wire, refused(errors.BadRequestResponseError, SENTENCE):
        rerank(wire.url, query="")
    eq(len(wire.requests), 1, "requests")


@case(CLIENT, PACKAGE, DIALECT)
def right_key(server: Server) -> None:
    check(rerank(server.keyed, server.key))


@case(CLIENT, PACKAGE, DIALECT)
def wrong_key(server: Server) -> None:
    with refused(errors.UnauthorizedResponseError, "invalid api token"):
        rerank(server.keyed, "wrong")


@case(CLIENT, PACKAGE, DIALECT)
async def ranks_async(server: Server) -> None:
    async with OpenRouter(api_key="any", server_url=f"{server.url}/openrouter/v1") as client:
        check(await client.rerank.rerank_async(model=MODEL, query=QUERY, documents=DOCUMENTS))


if __name__ == "__main__":
    main()
