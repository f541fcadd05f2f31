"""Voyage's reranker API."""

from __future__ import annotations

from schema.base import OBJECTS, QUERY, TEXTS, Call, Field, Maybe, Schema

SCHEMA = Schema(
    dialect="voyage",
    version="voyageai 0.5.0 (rerank-2.5)",
    date="2026-11",
    source="docs.voyageai.com, reranker API; voyageai: object/reranking.py",
    calls=(
        Call(
            "/v1/rerank",
            {
                "query": Field((QUERY,), required=True, invalid=("", 3)),
                "documents": Field(
                    (TEXTS,), required=True, invalid=([], [3]), lenient=(TEXTS[0], OBJECTS)
                ),
                "model": Field(("rerank-2.5", "rerank-2.5-lite"), required=True),
                "top_k": Field((1, 50, None), invalid=(-1, "many"), lenient=(0,)),
                "return_documents": Field((True, False), invalid=("maybe",)),
                "truncation": Field((True, False), invalid=(3, "no"), lenient=("chunk",)),
            },
            {
                "object": "list",
                "data": [{"index": int, "relevance_score": float, "document": Maybe(str)}],
                "model": str,
                "usage": {"total_tokens": int},
            },
            more=frozenset({"top_n"}),
        ),
    ),
    errors={status: {"detail": str} for status in (400, 401, 404)},
)
