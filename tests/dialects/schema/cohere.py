"""Cohere's Rerank API, as its Python SDK and its OpenAPI document state it."""

from __future__ import annotations

from schema.base import NUMBER, OBJECTS, QUERY, TEXTS, Call, Field, Maybe, Never, Open, Schema

_META = {
    "api_version": {"version": str, "is_deprecated": Never(bool), "is_experimental": Never(bool)},
    "billed_units": {
        "search_units": int,
        **dict.fromkeys(
            ("images", "input_tokens", "image_tokens", "text_tokens", "output_tokens", "pages"),
            Never(NUMBER),
        ),
        "classifications": Never(NUMBER),
    },
    "tokens": {"input_tokens": int, "output_tokens": int},
    "cached_tokens": Never(NUMBER),
    "warnings": Maybe([str]),
}
_SPAN = {"start": int, "end": int, "score": float}
_RANKED = {"index": int, "relevance_score": float}
_COUNT = Field((1, 2, 50), invalid=(-1, "many", [1]), lenient=(0,))
_MODEL = {
    "name": str,
    "is_deprecated": bool,
    "endpoints": ["rerank"],
    "finetuned": bool,
    "context_length": int,
    "tokenizer_url": None,
    "default_endpoints": [],
    "features": Never([str]),
    "sampling_defaults": Never(dict),
}

SCHEMA = Schema(
    dialect="cohere",
    version="cohere 7.3.1 (Rerank 5)",
    date="2026-11",
    source="cohere-python: v2/client.py, types/; cohere-openapi.yaml",
    calls=(
        Call(
            "/v2/rerank",
            {
                "model": Field(("rerank-v5.0-pro", "rerank-v5.0-fast"), required=True),
                "query": Field((QUERY,), required=True, invalid=("", 3, [])),
                "documents": Field((TEXTS,), required=True, invalid=([], 3), lenient=(OBJECTS,)),
                "top_n": _COUNT,
                "max_tokens_per_doc": Field((4096, 1), invalid=(0, "x")),
                "relevant_spans.mode": Field(
                    ("enabled", "disabled"), required=True, invalid=("x", 3)
                ),
                "relevant_spans.threshold": Field((0.0, 0.5), invalid=(2, "x")),
                "relevant_spans.max_spans": Field((1, 2), invalid=(0, "x")),
                "priority": Field((0, 999), invalid=(-1, 1000, "high")),
            },
            {
                "id": str,
                "results": [{**_RANKED, "relevant_spans": Maybe([_SPAN])}],
                "meta": _META,
            },
            more=frozenset({"return_documents"}),
            examples=({"unknown": 1},),
        ),
        Call(
            "/v1/rerank",
            {
                "model": Field(("rerank-v3.5",)),
                "query": Field((QUERY,), required=True, invalid=("", 3)),
                "documents": Field(
                    (TEXTS, OBJECTS), required=True, invalid=([], [3]), lenient=(TEXTS[0],)
                ),
                "top_n": _COUNT,
                "rank_fields": Field((["text"],), invalid=("text", [1])),
                "return_documents": Field((True, False), invalid=("maybe", 3)),
                "max_chunks_per_doc": Field((1, 10), invalid=(0, "x")),
            },
            {
                "id": str,
                "results": [{**_RANKED, "document": Maybe(Open({"text": str}))}],
                "meta": _META,
            },
            examples=({"unknown": 1},),
        ),
    ),
    errors={status: {"id": str, "message": str} for status in (400, 401, 404)},
    gets={
        "/v1/models": {"models": [_MODEL], "next_page_token": Never(str)},
        "/v1/models/rerank-v5.0-pro": _MODEL,
    },
)
