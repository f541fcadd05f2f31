"""Infinity's rerank API."""

from __future__ import annotations

from typing import Any

from schema.base import OBJECTS, QUERY, TEXTS, Call, Field, Maybe, Schema

_ERROR = {"error": {"message": str, "type": str, "param": Any, "code": str}}

SCHEMA = Schema(
    dialect="infinity",
    version="infinity 0.0.77",
    date="2025-10",
    source="michaelfeil/infinity: fastapi_schemas/pymodels.py, infinity_server.py",
    calls=(
        Call(
            "/rerank",
            {
                "query": Field((QUERY,), required=True, invalid=("", 3)),
                "documents": Field(
                    (TEXTS,), required=True, invalid=([], [3]), lenient=(TEXTS[0], OBJECTS)
                ),
                "return_documents": Field((True, False), invalid=("maybe",)),
                "raw_scores": Field((True, False), invalid=("maybe",)),
                "model": Field(("default/not-specified",)),
                "top_n": Field((1, 50, None), invalid=(0, -1, "many")),
            },
            {
                "object": "rerank",
                "results": [{"relevance_score": float, "index": int, "document": Maybe(str)}],
                "model": str,
                "usage": {"prompt_tokens": int, "total_tokens": int},
                "id": str,
                "created": int,
            },
        ),
    ),
    errors=dict.fromkeys((400, 401, 404), _ERROR),
    gets={
        "/models": {
            "object": "list",
            "data": [
                {
                    "id": str,
                    "stats": {"batch_size": int},
                    "object": "model",
                    "owned_by": "infinity",
                    "created": int,
                    "backend": str,
                    "capabilities": ["rerank"],
                }
            ],
        },
        "/health": {"unix": float},
    },
)
