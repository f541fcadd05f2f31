"""OpenRouter's rerank API, as its Python SDK states it."""

from __future__ import annotations

from typing import Any

from schema.base import PICTURE, QUERY, TEXTS, Call, Field, Never, Schema

_OBJECTS = [{"text": text} for text in TEXTS]


def _error(status: int) -> dict[str, Any]:
    return {
        "error": {"code": status, "message": str, "metadata": Never(dict)},
        "user_id": Never(str),
    }


SCHEMA = Schema(
    dialect="openrouter",
    version="openrouter 1.3.84",
    date="2026-11",
    source="openrouter: operations/creatererank.py; openrouter.ai, submit a rerank request",
    calls=(
        Call(
            "/v1/rerank",
            {
                "documents": Field(
                    (TEXTS, _OBJECTS),
                    required=True,
                    invalid=([], [3]),
                    lenient=(TEXTS[0],),
                    refused=([PICTURE], [{"text": TEXTS[0], **PICTURE}]),
                ),
                "model": Field(("qwen/qwen3-reranker-0.6b",), required=True),
                "query": Field((QUERY,), required=True, invalid=("", 3)),
                "provider": Field(({"allow_fallbacks": True}, None), invalid=("any",)),
                "session_id": Field(("a-session",), invalid=(3,)),
                "top_n": Field((1, 50), invalid=(0, -1, "many")),
                "trace": Field(({"trace_id": "1"},), invalid=(3,)),
                "user": Field(("someone",), invalid=(3,)),
            },
            {
                "id": str,
                "model": str,
                "provider": Never(str),
                "results": [{"document": {"text": str}, "index": int, "relevance_score": float}],
                "usage": {"cost": Never(float), "search_units": int, "total_tokens": int},
            },
            more=frozenset({"return_documents"}),
        ),
    ),
    errors={status: _error(status) for status in (400, 401, 404)},
)
