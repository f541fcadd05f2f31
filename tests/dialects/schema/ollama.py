"""Ollama's rerank API, as proposed."""

from __future__ import annotations

from schema.base import OBJECTS, QUERY, TEXTS, Call, Field, Maybe, Schema

SCHEMA = Schema(
    dialect="ollama",
    version="ollama/ollama#11389 (open), ai-sdk-ollama 4.3.0",
    date="2026-11",
    source="examples/reranking/README.md of that change; ai-sdk-ollama: models/reranking-model",
    calls=(
        Call(
            "/api/rerank",
            {
                "model": Field(("qwen3-reranker",), required=True),
                "query": Field((QUERY,), required=True, invalid=("", 3)),
                "documents": Field(
                    (TEXTS,), required=True, invalid=([], [3]), lenient=(TEXTS[0], OBJECTS)
                ),
                "instruction": Field(("Find what answers the question.",), invalid=(3,)),
                "top_n": Field((0, 1, 50), invalid=(-1, "many")),
                "return_documents": Field((True, False), invalid=("maybe",)),
            },
            {
                "model": str,
                "results": [{"index": int, "document": Maybe(str), "relevance_score": float}],
            },
        ),
    ),
    errors={status: {"error": str} for status in (400, 401, 404)},
)
