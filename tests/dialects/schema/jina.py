"""Jina's reranker API, as its OpenAPI document states it."""

from __future__ import annotations

from schema.base import OBJECTS, PICTURE, QUERY, TEXTS, Call, Field, Maybe, Open, Schema

SCHEMA = Schema(
    dialect="jina",
    version="API 1.0 (jina-reranker-v3, m0)",
    date="2026-11",
    source="api.jina.ai, OpenAPI document; docs of reranker models",
    calls=(
        Call(
            "/v1/rerank",
            {
                "model": Field(("jina-reranker-v3", "jina-reranker-m0"), required=True),
                "query": Field(
                    (QUERY, {"text": QUERY}), required=True, invalid=("", 3), refused=(PICTURE,)
                ),
                "documents": Field(
                    (TEXTS, OBJECTS),
                    required=True,
                    invalid=([], [3]),
                    lenient=(TEXTS[0],),
                    refused=([PICTURE],),
                ),
                "top_n": Field((1, 50), invalid=(-1, "many")),
                "return_documents": Field((True, False), invalid=("maybe",)),
                "max_doc_length": Field((512,), invalid=(0, "x")),
                "truncation": Field((True, False), invalid=(3, "no"), lenient=("chunk",)),
            },
            {
                "model": str,
                "object": "list",
                "usage": {"total_tokens": int, "prompt_tokens": int},
                "results": [
                    {
                        "index": int,
                        "relevance_score": float,
                        "document": Maybe(Open({"text": str})),
                    }
                ],
            },
        ),
    ),
    errors={status: {"detail": str} for status in (400, 401, 404)},
)
