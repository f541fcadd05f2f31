"""Weaviate's reranker container."""

from __future__ import annotations

from schema.base import OBJECTS, QUERY, TEXTS, Call, Field, OneOf, Schema

SCHEMA = Schema(
    dialect="weaviate",
    version="reranker-transformers 1.3",
    date="2026-11",
    source="weaviate/reranker-transformers: app.py, crossencoder.py, smoke_tests.py",
    calls=(
        Call(
            "/rerank",
            {
                "query": Field((QUERY,), required=True, invalid=("", 3)),
                "property": Field(("", TEXTS[0], None), invalid=(3,)),
                "documents": Field((TEXTS,), required=True, invalid=([], [3]), lenient=(OBJECTS,)),
            },
            {
                "query": str,
                "scores": OneOf(([{"document": str, "score": float}], None)),
                "property": OneOf((str, None)),
                "score": OneOf((float, None)),
            },
        ),
    ),
    errors={status: {"error": str} for status in (400, 401, 404)},
    gets={"/.well-known/live": None, "/.well-known/ready": None, "/meta": dict},
)
