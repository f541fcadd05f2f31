"""LiteLLM's provider `deepinfra/`: no `top_n`, and results in the order of the request."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import litellm

from harness import DOCUMENTS, QUERY, Server, case, eq, main, ranked, refused

CLIENT, PACKAGE, DIALECT = "litellm deepinfra/", "litellm", "DeepInfra"
MODEL = "Qwen/Qwen3-Reranker-8B"

# litellm up to 1.83 raises APIConnectionError for every 4xx, with the server's message.
OLD = version("litellm").startswith("1.83")


def arguments(url: str, **more: Any) -> dict[str, Any]:
    return {
        "model": f"deepinfra/{MODEL}",
        "query": QUERY,
        "documents": DOCUMENTS,
        "api_base": f"{url}/v1",
        "api_key": "any",
        **more,
    }


def check(answer: Any) -> None:
    eq([result["index"] for result in answer.results], list(range(len(DOCUMENTS))))
    best_first = sorted(answer.results, key=lambda result: -result["relevance_score"])
    ranked(
        [result["index"] for result in best_first],
        [result["relevance_score"] for result in best_first],
    )
    assert answer.meta["tokens"]["input_tokens"] > 0


@case(CLIENT, PACKAGE, DIALECT)
def ranks(server: Server) -> None:
    with server.watched() as wire:
        check(litellm.rerank(**arguments(wire.url)))
    eq(wire.requests, [f"POST /v1/inference/{MODEL}"])


@case(CLIENT, PACKAGE, DIALECT)
def base_without_v1(server: Server) -> None:
    with server.watched() as wire:
        check(litellm.rerank(**arguments(wire.url, api_base=wire.url)))
    eq(wire.requests, [f"POST /inference/{MODEL}"])


@case(CLIENT, PACKAGE, DIALECT)
async def ranks_async(server: Server) -> None:
    check(await litellm.arerank(**arguments(server.url)))


@case(CLIENT, PACKAGE, DIALECT)
def bad_request(server: Server) -> None:
    with server.watched() as wire, refused(Exception, "must not be empty"):
        litellm.rerank(**arguments(wire.url, query=" "))
    eq(len(wire.requests), 1, "requests")


@case(CLIENT, PACKAGE, DIALECT)
def right_key(server: Server) -> None:
    check(litellm.rerank(**arguments(server.keyed, api_key=server.key)))


@case(CLIENT, PACKAGE, DIALECT)
def wrong_key(server: Server) -> None:
    kind = litellm.APIConnectionError if OLD else litellm.AuthenticationError
    with refused(kind, "invalid api token"):
        litellm.rerank(**arguments(server.keyed, api_key="wrong"))


if __name__ == "__main__":
    main()
