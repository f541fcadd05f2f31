"""LangChain's community compressors: Jina, Infinity and DashScope."""

from __future__ import annotations

from typing import Any

import dashscope
from infinity_client import AuthenticatedClient, Client
from langchain_community.document_compressors import (
    DashScopeRerank,
    InfinityRerank,
    JinaRerank,
    jina_rerank,
)
from langchain_core.documents import Document

from harness import DOCUMENTS, MODEL, QUERY, SENTENCE, Server, case, eq, main, ranked, refused

PACKAGE = "langchain-community"


def compress(compressor: Any, query: str = QUERY) -> list[Document]:
    documents = [Document(page_content=text) for text in DOCUMENTS]
    return list(compressor.compress_documents(documents, query))


def check(documents: list[Document], count: int = len(DOCUMENTS)) -> None:
    ranked(
        [DOCUMENTS.index(document.page_content) for document in documents],
        [document.metadata["relevance_score"] for document in documents],
        count,
    )


def jina(url: str, key: str = "any", **more: Any) -> JinaRerank:
    # Its URL is a module constant.
    jina_rerank.JINA_API_URL = f"{url}/v1/rerank"
    return JinaRerank(model=MODEL, jina_api_key=key, **more)


@case("langchain JinaRerank", PACKAGE, "Jina")
def ranks_with_jina(server: Server) -> None:
    with server.watched() as wire:
        check(compress(jina(wire.url)))
    eq(wire.requests, ["POST /v1/rerank"])


@case("langchain JinaRerank", PACKAGE, "Jina")
def top_n_with_jina(server: Server) -> None:
    check(compress(jina(server.url, top_n=2)), 2)
    check(compress(jina(server.url, top_n=None)))


@case("langchain JinaRerank", PACKAGE, "Jina")
def bad_request_with_jina(server: Server) -> None:
    with refused(RuntimeError, SENTENCE):
        compress(jina(server.url), "")


@case("langchain JinaRerank", PACKAGE, "Jina")
def keys_with_jina(server: Server) -> None:
    check(compress(jina(server.keyed, server.key)))
    with refused(RuntimeError, "invalid api token"):
        compress(jina(server.keyed, "wrong"))


@case("langchain InfinityRerank", PACKAGE, "Infinity")
def ranks_with_infinity(server: Server) -> None:
    with server.watched() as wire:
        check(compress(InfinityRerank(client=Client(base_url=wire.url), model=MODEL)))
    eq(wire.requests, ["POST /rerank"])


@case("langchain InfinityRerank", PACKAGE, "Infinity")
def top_n_with_infinity(server: Server) -> None:
    client = Client(base_url=server.url)

    check(compress(InfinityRerank(client=client, model=MODEL, top_n=2)), 2)


@case("langchain InfinityRerank", PACKAGE, "Infinity")
def right_key_with_infinity(server: Server) -> None:
    client = AuthenticatedClient(base_url=server.keyed, token=server.key)
    # It accepts only the class without a key, so the key is sent as a header.
    client = Client(base_url=server.keyed, headers={"Authorization": f"Bearer {client.token}"})

    check(compress(InfinityRerank(client=client, model=MODEL)))


@case("langchain InfinityRerank", PACKAGE, "Infinity")
def bad_request_with_infinity(server: Server) -> None:
    """The client ignores the status; the parsed answer is None."""
    with refused(TypeError):
        compress(InfinityRerank(client=Client(base_url=server.url), model=MODEL), "")


def by_dashscope(url: str, key: str = "any", **more: Any) -> DashScopeRerank:
    dashscope.base_http_api_url = f"{url}/api/v1"
    return DashScopeRerank(dashscope_api_key=key, **more)


@case("langchain DashScopeRerank", PACKAGE, "DashScope")
def ranks_with_dashscope(server: Server) -> None:
    with server.watched() as wire:
        check(compress(by_dashscope(wire.url)))
    eq(wire.requests, ["POST /api/v1/services/rerank/text-rerank/text-rerank"])


@case("langchain DashScopeRerank", PACKAGE, "DashScope")
def top_n_with_dashscope(server: Server) -> None:
    check(compress(by_dashscope(server.url, top_n=2)), 2)


@case("langchain DashScopeRerank", PACKAGE, "DashScope")
def right_key_with_dashscope(server: Server) -> None:
    check(compress(by_dashscope(server.keyed, server.key)))


@case("langchain DashScopeRerank", PACKAGE, "DashScope")
def bad_request_with_dashscope(server: Server) -> None:
    """The client ignores the status; the output is None."""
    with refused(AttributeError):
        compress(by_dashscope(server.url), " ")


if __name__ == "__main__":
    main()
