"""Dify's plugin SDK: the class behind its OpenAI-compatible rerank providers."""

from __future__ import annotations

from typing import Any

from dify_plugin.errors.model import InvokeServerUnavailableError
from dify_plugin.interfaces.model.openai_compatible.rerank import OAICompatRerankModel

from harness import BEIJING, BEST, DOCUMENTS, MODEL, QUERY, Server, case, eq, main, refused

CLIENT, PACKAGE, DIALECT = "dify_plugin OAICompatRerankModel", "dify_plugin", "vLLM"


def invoke(url: str, key: str = "any", **more: Any) -> Any:
    credentials = {"endpoint_url": url, "api_key": key}
    arguments = {"query": QUERY, "docs": DOCUMENTS} | more
    return OAICompatRerankModel(model_schemas=[])._invoke(MODEL, credentials, **arguments)


def check(answer: Any, count: int = len(DOCUMENTS)) -> None:
    eq(len(answer.docs), count, "documents")
    eq((answer.docs[0].index, answer.docs[0].text), (BEST, BEIJING))
    # Dify rescales the scores to the range 0 to 1.
    eq((answer.docs[0].score, answer.docs[-1].score), (1.0, 0.0))


@case(CLIENT, PACKAGE, DIALECT)
def ranks(server: Server) -> None:
    with server.watched() as wire:
        check(invoke(wire.url + "/v1"))
    eq(wire.requests, ["POST /v1/rerank"])


@case(CLIENT, PACKAGE, DIALECT)
def without_v1(server: Server) -> None:
    check(invoke(server.url))


@case(CLIENT, PACKAGE, DIALECT)
def top_n(server: Server) -> None:
    check(invoke(server.url + "/v1", top_n=2), 2)


@case(CLIENT, PACKAGE, DIALECT)
def top_n_above_the_count(server: Server) -> None:
    check(invoke(server.url + "/v1", top_n=50))


@case(CLIENT, PACKAGE, DIALECT)
def its_own_validation(server: Server) -> None:
    OAICompatRerankModel(model_schemas=[]).validate_credentials(
        MODEL, {"endpoint_url": server.keyed + "/v1", "api_key": server.key}
    )


@case(CLIENT, PACKAGE, DIALECT)
def bad_request(server: Server) -> None:
    """Dify shows the status and the URL, not the body."""
    with server.watched() as wire, refused(InvokeServerUnavailableError, "400"):
        invoke(wire.url + "/v1", query="")
    eq(len(wire.requests), 1, "requests")


@case(CLIENT, PACKAGE, DIALECT)
def wrong_key(server: Server) -> None:
    with refused(InvokeServerUnavailableError, "401"):
        invoke(server.keyed + "/v1", "wrong")


if __name__ == "__main__":
    main()
