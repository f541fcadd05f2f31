"""LightRAG's three bindings, which take the whole URL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightrag.rerank import ali_rerank, cohere_rerank, jina_rerank
from tenacity import RetryError

from harness import DOCUMENTS, MODEL, QUERY, Server, each, eq, main, ranked, refused

BINDINGS: dict[str, tuple[str, str, Callable[..., Any]]] = {
    "cohere": ("Cohere v2", "/v2/rerank", cohere_rerank),
    "jina": ("Jina", "/v1/rerank", jina_rerank),
    "ali": ("DashScope", "/api/v1/services/rerank/text-rerank/text-rerank", ali_rerank),
}


def check(found: list[dict[str, Any]], count: int = len(DOCUMENTS)) -> None:
    ranked(
        [result["index"] for result in found],
        [result["relevance_score"] for result in found],
        count,
    )


def cases(path: str, rerank: Callable[..., Any]) -> dict[str, Callable[[Server], Any]]:
    async def ranks(server: Server) -> None:
        with server.watched() as wire:
            check(
                await rerank(QUERY, DOCUMENTS, api_key="any", model=MODEL, base_url=wire.url + path)
            )
        eq(wire.requests, [f"POST {path}"])

    async def top_n(server: Server) -> None:
        check(
            await rerank(
                QUERY, DOCUMENTS, top_n=2, api_key="any", model=MODEL, base_url=server.url + path
            ),
            2,
        )

    async def top_n_above_the_count(server: Server) -> None:
        check(
            await rerank(
                QUERY, DOCUMENTS, top_n=50, api_key="any", model=MODEL, base_url=server.url + path
            )
        )

    async def right_key(server: Server) -> None:
        check(
            await rerank(
                QUERY, DOCUMENTS, api_key=server.key, model=MODEL, base_url=server.keyed + path
            )
        )

    async def bad_request(server: Server) -> None:
        """LightRAG sends a request three times after any error status."""
        with server.watched() as wire, refused(RetryError) as caught:
            await rerank("", DOCUMENTS, api_key="any", model=MODEL, base_url=wire.url + path)
        cause = caught[0].last_attempt.exception()
        eq(cause.status, 400)
        eq(len(wire.requests), 3, "requests")

    functions = [ranks, top_n, top_n_above_the_count, right_key, bad_request]
    return {run.__name__: run for run in functions}


for name, (dialect, path, rerank) in BINDINGS.items():
    each(f"lightrag {name}_rerank", "lightrag-hku", dialect, **cases(path, rerank))


if __name__ == "__main__":
    main()
