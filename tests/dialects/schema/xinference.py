"""Xinference's rerank API."""

from __future__ import annotations

from schema.base import OBJECTS, QUERY, TEXTS, Call, Field, Maybe, OneOf, Open, Schema

SCHEMA = Schema(
    dialect="xinference",
    version="Xinference 4.1.0",
    date="2026-11",
    source="xinference: api/schemas/requests.py, types.py; xinference-client 4.1.0",
    calls=(
        Call(
            "/v1/rerank",
            {
                "model": Field(("bge-reranker-v2-m3",), required=True),
                "query": Field((QUERY, {"text": QUERY}), required=True, invalid=("", 3)),
                "documents": Field(
                    (TEXTS, OBJECTS), required=True, invalid=([], [3]), lenient=(TEXTS[0],)
                ),
                "top_n": Field((1, 50, None), invalid=("many",)),
                "return_documents": Field((True, False, None), invalid=("maybe",)),
                "return_len": Field((True, False, None), invalid=("maybe",)),
                "max_chunks_per_doc": Field((1, 10, None), invalid=("x",)),
                "kwargs": Field(
                    ("{}", '{"instruction": "Find it."}', None), invalid=("[",), lenient=({},)
                ),
            },
            {
                "id": str,
                "results": [
                    {
                        "index": int,
                        "relevance_score": float,
                        "document": Maybe(Open({"text": str})),
                    }
                ],
                "meta": {
                    "api_version": None,
                    "billed_units": None,
                    "tokens": {"input_tokens": int, "output_tokens": int},
                    "warnings": OneOf((None, [str])),
                },
            },
        ),
    ),
    errors={status: {"detail": str} for status in (400, 401, 404)},
    gets={
        "/v1/cluster/auth": {"auth": bool},
        "/v1/models/bge-reranker-v2-m3": Open({"model_type": "rerank", "model_name": str}),
    },
)
