"""SiliconFlow's rerank API."""

from __future__ import annotations

from schema.base import OBJECTS, QUERY, TEXTS, Call, Field, Maybe, Schema

SCHEMA = Schema(
    dialect="siliconflow",
    version="API of 2026-11 (Qwen3-Reranker, bge-reranker-v2-m3)",
    date="2026-11",
    source="docs.siliconflow.com/en/api-reference/rerank/create-rerank",
    calls=(
        Call(
            "/v1/rerank",
            {
                "model": Field(("Qwen/Qwen3-Reranker-8B",), required=True),
                "query": Field((QUERY,), required=True, invalid=("", 3)),
                "documents": Field(
                    (TEXTS, TEXTS[0]), required=True, invalid=([], [3]), lenient=(OBJECTS,)
                ),
                "instruction": Field(("Find what answers the question.",), invalid=(3,)),
                "top_n": Field((1, 50), invalid=(-1, "many")),
                "return_documents": Field((True, False), invalid=("maybe",)),
                "max_chunks_per_doc": Field((1, 1024), invalid=(0, "x")),
                "overlap_tokens": Field((0, 80), invalid=(-1, "x")),
            },
            {
                "id": str,
                "results": [
                    {
                        "index": int,
                        "relevance_score": float,
                        "document": Maybe({"text": str}),
                    }
                ],
                # The newer answers have the counts in `meta`, the older ones in `tokens`.
                "tokens": {"input_tokens": int, "output_tokens": int},
                "meta": {
                    "api_version": {"version": str},
                    "billed_units": {"search_units": int},
                    "tokens": {"input_tokens": int, "output_tokens": int},
                    "warnings": Maybe([str]),
                },
            },
            examples=({"unknown": 1},),
        ),
    ),
    errors={
        status: {"code": code, "message": str, "data": None}
        for status, code in ((400, 20015), (401, 20001), (404, 20012))
    },
)
