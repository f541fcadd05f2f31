"""Pinecone's inference API, rerank and models."""

from __future__ import annotations

from schema.base import OBJECTS, QUERY, TEXTS, Call, Field, Maybe, Never, Schema

_MODEL = {
    "model": str,
    "short_description": str,
    "type": "rerank",
    "vector_type": Never(str),
    "default_dimension": Never(int),
    "supported_dimensions": Never([int]),
    "supported_metrics": Never([str]),
    "modality": "text",
    "max_sequence_length": int,
    "max_batch_size": int,
    "provider_name": str,
    "supported_parameters": [
        {
            "parameter": str,
            "type": "one_of",
            "value_type": "string",
            "required": bool,
            "default": str,
            "allowed_values": [str],
            "min": Never(float),
            "max": Never(float),
        }
    ],
}

SCHEMA = Schema(
    dialect="pinecone",
    version="inference API 2026-07",
    date="2026-07",
    source="pinecone-io/pinecone-api: 2026-07/inference_2026-07.oas.yaml",
    calls=(
        Call(
            "/rerank",
            {
                "model": Field(("cohere-rerank-4-fast", "bge-reranker-v2-m3"), required=True),
                "query": Field((QUERY,), required=True, invalid=("", 3)),
                "documents": Field((OBJECTS,), required=True, invalid=([], [3]), lenient=(TEXTS,)),
                "top_n": Field((1, 50), invalid=(-1, "many"), lenient=(0,)),
                "return_documents": Field((True, False), invalid=("maybe",)),
                "rank_fields": Field((["text"],), invalid=("text", [1])),
                "parameters": Field(
                    ({"truncate": "END"}, {"truncate": "NONE"}, {}),
                    invalid=({"truncate": "START"}, "END"),
                ),
            },
            {
                "model": str,
                "data": [
                    {
                        "index": int,
                        "score": float,
                        "document": Maybe({"id": Maybe(str), "text": str}),
                    }
                ],
                "usage": {"rerank_units": int},
            },
        ),
    ),
    errors={
        status: {"error": {"code": code, "message": str, "details": Never(dict)}, "status": status}
        for status, code in ((400, "INVALID_ARGUMENT"), (401, "UNAUTHENTICATED"))
    }
    | {
        404: {
            "error": {"code": "NOT_FOUND", "message": str, "details": Never(dict)},
            "status": 404,
        }
    },
    gets={"/models": {"models": [_MODEL]}, "/models/bge-reranker-v2-m3": _MODEL},
)
