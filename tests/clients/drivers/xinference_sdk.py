"""Xinference's client, also used by Dify and MaxKB."""

from __future__ import annotations

from typing import Any

from xinference_client import RESTfulClient

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

CLIENT, PACKAGE, DIALECT = "xinference_client.RESTfulClient", "xinference-client", "Xinference"


def model(url: str, key: str | None = None, uid: str = MODEL) -> Any:
    return RESTfulClient(url, api_key=key).get_model(uid)


def check(answer: Any, count: int = len(DOCUMENTS)) -> None:
    results = answer["results"]
    ranked(
        [result["index"] for result in results],
        [result["relevance_score"] for result in results],
        count,
    )


@case(CLIENT, PACKAGE, DIALECT)
def ranks(server: Server) -> None:
    with server.watched() as wire:
        check(model(wire.url, uid="builtin").rerank(DOCUMENTS, QUERY))
    eq(
        wire.requests,
        ["GET /v1/cluster/auth", "GET /v1/models/builtin", "POST /v1/rerank"],
    )


@case(CLIENT, PACKAGE, DIALECT)
def name_with_a_slash(server: Server) -> None:
    check(model(server.url).rerank(DOCUMENTS, QUERY))


@case(CLIENT, PACKAGE, DIALECT)
def every_field(server: Server) -> None:
    answer = model(server.url).rerank(
        DOCUMENTS, QUERY, top_n=2, max_chunks_per_doc=1, return_documents=True, return_len=True
    )

    check(answer, 2)
    eq(answer["results"][0]["document"]["text"], BEIJING)


@case(CLIENT, PACKAGE, DIALECT)
def without_documents(server: Server) -> None:
    check(model(server.url).rerank(DOCUMENTS, QUERY, return_documents=False))


@case(CLIENT, PACKAGE, DIALECT)
def lists_models(server: Server) -> None:
    assert RESTfulClient(server.url).list_models()


@case(CLIENT, PACKAGE, DIALECT)
def bad_request(server: Server) -> None:
    with refused(RuntimeError, SENTENCE):
        model(server.url).rerank(DOCUMENTS, "")


@case(CLIENT, PACKAGE, DIALECT)
def right_key(server: Server) -> None:
    check(model(server.keyed, server.key).rerank(DOCUMENTS, QUERY))


@case(CLIENT, PACKAGE, DIALECT)
def wrong_key(server: Server) -> None:
    with refused(RuntimeError, "invalid api token"):
        model(server.keyed, "wrong").rerank(DOCUMENTS, QUERY)


if __name__ == "__main__":
    main()
