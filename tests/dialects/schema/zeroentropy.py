"""ZeroEntropy's rerank API, as its Python SDK states it."""

from __future__ import annotations

from schema.base import OBJECTS, QUERY, TEXTS, Call, Field, OneOf, Schema

SCHEMA = Schema(
    dialect="zeroentropy",
    version="zeroentropy 0.1.0a11 (zerank-2)",
    date="2026-11",
    source="zeroentropy-python: types/model_rerank_params.py, types/model_rerank_response.py",
    calls=(
        Call(
            "/v1/models/rerank",
            {
                "model": Field(("zerank-2",), required=True),
                "query": Field((QUERY,), required=True, invalid=("", 3)),
                "documents": Field(
                    (TEXTS,), required=True, invalid=([], [3]), lenient=(TEXTS[0], OBJECTS)
                ),
                "top_n": Field((1, 50, None), invalid=(-1, "many")),
                "latency": Field(("fast", "slow", None), invalid=("medium",)),
            },
            {
                "results": [{"index": int, "relevance_score": float}],
                "total_bytes": int,
                "total_tokens": int,
                "actual_latency_mode": OneOf(("fast", "slow")),
                "e2e_latency": float,
                "inference_latency": float,
            },
            more=frozenset({"return_documents"}),
        ),
    ),
    # The vendor documents no format; its SDK keeps the whole body.
    errors={status: {"detail": str} for status in (400, 401, 404)},
)
