"""llama.cpp's server."""

from __future__ import annotations

from schema.base import QUERY, TEXTS, Call, Field, Maybe, Schema

_QUERY = Field((QUERY,), required=True, invalid=("", 3))
_TOP_N = Field((1, 50), invalid=(-1, "many"))

SCHEMA = Schema(
    dialect="llamacpp",
    version="tools/server of 2026-08",
    date="2026-08",
    source="ggml-org/llama.cpp: tools/server/README.md, server-common.cpp",
    calls=(
        *(
            Call(
                path,
                {
                    "model": Field(("some-model",)),
                    "query": _QUERY,
                    "documents": Field(
                        (TEXTS,), required=True, invalid=([], [3]), lenient=(TEXTS[0],)
                    ),
                    "top_n": _TOP_N,
                },
                {
                    "model": str,
                    "object": "list",
                    "usage": {"prompt_tokens": int, "total_tokens": int},
                    "results": [{"index": int, "relevance_score": float}],
                },
                more=frozenset({"return_documents"}),
            )
            for path in ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking")
        ),
        # TEI's body.
        Call(
            "/rerank",
            {
                "query": _QUERY,
                "texts": Field((TEXTS,), required=True, invalid=([], [3])),
                "return_text": Field((True, False), invalid=("maybe",)),
                "top_n": _TOP_N,
            },
            [{"index": int, "score": float, "text": Maybe(str)}],
            more=frozenset({"raw_scores", "truncate", "truncation_direction"}),
            told_by="texts",
        ),
    ),
    errors={
        status: {"error": {"code": status, "message": str, "type": str}}
        for status in (400, 401, 404)
    },
    gets={
        "/health": {"status": "ok"},
        "/v1/models": {
            "object": "list",
            "data": [
                {
                    "id": str,
                    "object": "model",
                    "created": int,
                    "owned_by": "llamacpp",
                    "meta": {"n_ctx_train": int},
                }
            ],
        },
    },
)
