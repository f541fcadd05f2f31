"""Alibaba's DashScope SDK."""

from __future__ import annotations

from typing import Any

import dashscope

from harness import BEIJING, DOCUMENTS, QUERY, SENTENCE, Server, case, eq, main, ranked

CLIENT, PACKAGE, DIALECT = "dashscope.TextReRank", "dashscope", "DashScope"
MODEL = "qwen3-rerank"


def call(url: str, key: str = "any", **more: Any) -> Any:
    dashscope.base_http_api_url = url + "/api/v1"
    arguments = {"model": MODEL, "query": QUERY, "documents": DOCUMENTS} | more
    return dashscope.TextReRank.call(api_key=key, **arguments)


def check(answer: Any, count: int = len(DOCUMENTS)) -> None:
    eq(answer.status_code, 200, "status")
    results = answer.output.results
    ranked(
        [result.index for result in results], [result.relevance_score for result in results], count
    )
    assert answer.request_id
    assert answer.usage.total_tokens > 0


@case(CLIENT, PACKAGE, DIALECT)
def ranks(server: Server) -> None:
    with server.watched() as wire:
        check(call(wire.url))
    eq(wire.requests, ["POST /api/v1/services/rerank/text-rerank/text-rerank"])


@case(CLIENT, PACKAGE, DIALECT)
def every_field(server: Server) -> None:
    answer = call(
        server.url,
        top_n=2,
        return_documents=True,
        instruct="Given a web search query, retrieve relevant passages that answer the query",
    )

    check(answer, 2)
    eq(answer.output.results[0]["document"]["text"], BEIJING)


@case(CLIENT, PACKAGE, DIALECT)
def without_documents(server: Server) -> None:
    answer = call(server.url, top_n=50, return_documents=False)

    check(answer)
    eq([result["document"] for result in answer.output.results], [None, None, None])


@case(CLIENT, PACKAGE, DIALECT)
def bad_request(server: Server) -> None:
    with server.watched() as wire:
        answer = call(wire.url, query=" ")
    eq(answer.status_code, 400, "status")
    assert answer.code, answer
    assert SENTENCE in answer.message, answer
    eq(len(wire.requests), 1, "requests")


@case(CLIENT, PACKAGE, DIALECT)
def right_key(server: Server) -> None:
    check(call(server.keyed, server.key))


@case(CLIENT, PACKAGE, DIALECT)
def wrong_key(server: Server) -> None:
    answer = call(server.keyed, "wrong")

    eq(answer.status_code, 401, "status")
    assert "invalid api token" in answer.message, answer


@case("dashscope.AioTextReRank", PACKAGE, DIALECT)
async def ranks_async(server: Server) -> None:
    dashscope.base_http_api_url = server.url + "/api/v1"

    check(
        await dashscope.AioTextReRank.call(
            model=MODEL, query=QUERY, documents=DOCUMENTS, api_key="any"
        )
    )


if __name__ == "__main__":
    main()
