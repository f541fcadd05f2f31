"""NVIDIA's NeMo Retriever Reranking NIM."""

from __future__ import annotations

from schema.base import PICTURE, QUERY, TEXTS, Call, Field, Schema

_PASSAGES = [{"text": text} for text in TEXTS]
_FIELDS = {
    "model": Field(("nvidia/Nemotron-3.5-Rerank-8B-BF16",), required=True),
    "query": Field(({"text": QUERY},), required=True, invalid=({"text": ""}, 3), lenient=(QUERY,)),
    "passages": Field(
        (_PASSAGES,),
        required=True,
        invalid=([], [3]),
        lenient=(TEXTS,),
        # A picture in base64, with and without a text.
        refused=([PICTURE], [{"text": TEXTS[0], **PICTURE}]),
    ),
    "truncate": Field(("NONE", "END"), invalid=("MIDDLE", True), lenient=("START",)),
}
_ANSWER = {
    "rankings": [{"index": int, "logit": float}],
    "usage": {"prompt_tokens": int, "total_tokens": int},
}

SCHEMA = Schema(
    dialect="nim",
    version="NeMo Retriever Reranking NIM 2.4.0",
    date="2026-11",
    source="docs.nvidia.com/nim/nemo-retriever/reranking/2.4",
    calls=tuple(
        Call(path, _FIELDS, _ANSWER, more=frozenset({"top_k", "top_n"}))
        for path in ("/v1/ranking", "/v1/retrieval/nvidia/rerank-qa/reranking")
    ),
    errors={status: {"object": "error", "message": str, "type": str} for status in (400, 401, 404)},
    gets={
        "/v1/health/live": {"object": "health.response", "message": str, "status": "live"},
        "/v1/health/ready": {"object": "health.response", "message": str, "status": "ready"},
    },
)
