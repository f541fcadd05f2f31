"""SGLang's rerank API."""

from __future__ import annotations

from typing import Any

from schema.base import OBJECTS, QUERY, TEXTS, Call, Field, Maybe, Schema

_BLOCKS = [{"type": "text", "text": TEXTS[0]}]
_PICTURE = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
_CARD = {
    "id": str,
    "object": "model",
    "created": int,
    "owned_by": "sglang",
    "root": str,
    "parent": None,
    "max_model_len": int,
}

SCHEMA = Schema(
    dialect="sglang",
    version="SGLang 0.5.23",
    date="2026-11",
    source="sglang: srt/entrypoints/openai/protocol.py, serving_base.py, serving_rerank.py",
    calls=(
        Call(
            "/v1/rerank",
            {
                "query": Field((QUERY, _BLOCKS), required=True, invalid=(3,), refused=(_PICTURE,)),
                "documents": Field(
                    (TEXTS, [_BLOCKS]),
                    required=True,
                    invalid=([], [3]),
                    lenient=(TEXTS[0], OBJECTS),
                    refused=([_PICTURE],),
                ),
                "instruct": Field(("Find what answers the question.",), invalid=(3,)),
                "top_n": Field((1, 50, None), invalid=(0, -1, "many")),
                "return_documents": Field((True, False), invalid=("maybe",)),
            },
            [
                {
                    "score": float,
                    "document": Maybe(str),
                    "index": int,
                    "meta_info": {"id": str, "prompt_tokens": int},
                }
            ],
        ),
    ),
    errors={
        status: {"object": "error", "message": str, "type": kind, "param": Any, "code": status}
        for status, kind in ((400, "BadRequestError"), (401, str), (404, str))
    },
    gets={
        "/v1/models": {"object": "list", "data": [_CARD]},
        "/v1/models/Qwen/Qwen3-Reranker-8B": _CARD,
    },
)
