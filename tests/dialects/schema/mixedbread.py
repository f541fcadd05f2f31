"""Mixedbread's reranking API, as its Python SDK states it."""

from __future__ import annotations

from typing import Any

from schema.base import OBJECTS, QUERY, TEXTS, Call, Field, Maybe, Never, Schema

SCHEMA = Schema(
    dialect="mixedbread",
    version="mixedbread 0.54.0",
    date="2026-11",
    source="mixedbread-python: types/client_rerank_params.py, types/rerank_response.py",
    calls=(
        Call(
            "/v1/reranking",
            {
                "model": Field(("mixedbread-ai/mxbai-rerank-large-v2",)),
                "query": Field((QUERY,), required=True, invalid=("", 3)),
                "input": Field((TEXTS, OBJECTS), required=True, invalid=([], [3])),
                "rank_fields": Field((["text"],), invalid=("text", [1])),
                "top_k": Field((1, 50), invalid=(-2, "many"), lenient=(0, -1)),
                "return_input": Field((True, False), invalid=("maybe",)),
                "rewrite_query": Field((False, True), may_be_ignored=True),
            },
            {
                "usage": {
                    "prompt_tokens": int,
                    "total_tokens": int,
                    "completion_tokens": Never(int),
                },
                "model": str,
                "data": [
                    {
                        "index": int,
                        "score": float,
                        "input": Maybe(Any),
                        "object": "rank_result",
                    }
                ],
                "object": "list",
                "top_k": int,
                "return_input": bool,
            },
            more=frozenset({"top_n"}),
        ),
    ),
    errors={status: {"detail": str} for status in (400, 401, 404)},
)
