"""ZeroEntropy's own SDK."""

from __future__ import annotations

from typing import Any

import zeroentropy

from harness import DOCUMENTS, QUERY, SENTENCE, Server, case, eq, main, ranked, refused

CLIENT, PACKAGE, DIALECT = "zeroentropy.ZeroEntropy", "zeroentropy", "ZeroEntropy"
MODEL = "zerank-2"


def client(url: str, key: str = "any") -> Any:
    return zeroentropy.ZeroEntropy(api_key=key, base_url=f"{url}/v1")


def check(answer: Any, count: int = len(DOCUMENTS)) -> None:
    scores = [result.relevance_score for result in answer.results]
    ranked([result.index for result in answer.results], scores, count)
    assert answer.total_tokens > 0
    assert answer.total_bytes > 450
    assert answer.e2e_latency >= answer.inference_latency >= 0


@case(CLIENT, PACKAGE, DIALECT)
def ranks(server: Server) -> None:
    with server.watched() as wire:
        check(client(wire.url).models.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS))
    eq(wire.requests, ["POST /v1/models/rerank"])


@case(CLIENT, PACKAGE, DIALECT)
def every_field(server: Server) -> None:
    answer = client(server.url).models.rerank(
        model=MODEL, query=QUERY, documents=DOCUMENTS, top_n=2, latency="slow"
    )

    check(answer, 2)
    eq(answer.actual_latency_mode, "slow")


@case(CLIENT, PACKAGE, DIALECT)
def bad_request(server: Server) -> None:
    with server.watched() as wire, refused(zeroentropy.BadRequestError, SENTENCE):
        client(wire.url).models.rerank(model=MODEL, query="", documents=DOCUMENTS)
    eq(len(wire.requests), 1, "requests")


@case(CLIENT, PACKAGE, DIALECT)
def right_key(server: Server) -> None:
    keyed = client(server.keyed, server.key)

    check(keyed.models.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS))


@case(CLIENT, PACKAGE, DIALECT)
def wrong_key(server: Server) -> None:
    with refused(zeroentropy.AuthenticationError, "invalid api token"):
        client(server.keyed, "wrong").models.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS)


@case("zeroentropy.AsyncZeroEntropy", PACKAGE, DIALECT)
async def ranks_async(server: Server) -> None:
    async with zeroentropy.AsyncZeroEntropy(api_key="any", base_url=f"{server.url}/v1") as one:
        check(await one.models.rerank(model=MODEL, query=QUERY, documents=DOCUMENTS))


if __name__ == "__main__":
    main()
