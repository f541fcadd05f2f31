"""Hugging Face's text-embeddings-inference."""

from __future__ import annotations

from schema.base import OBJECTS, QUERY, TEXTS, Call, Field, Maybe, Schema

_FIELDS = {
    "query": Field((QUERY,), required=True, invalid=("", 3)),
    "texts": Field((TEXTS,), required=True, invalid=([], 3), lenient=(OBJECTS,)),
    "truncate": Field((True, False, None), invalid=("END", 3)),
    "truncation_direction": Field(("Left", "Right"), invalid=("Up",), lenient=("left", "right")),
    "raw_scores": Field((True, False), invalid=("maybe",)),
    "return_text": Field((True, False), invalid=("maybe",)),
}
_ANSWER = [{"index": int, "score": float, "text": Maybe(str)}]

SCHEMA = Schema(
    dialect="tei",
    version="main of 2026-07-24 (1.9.3)",
    date="2026-07",
    source="huggingface/text-embeddings-inference: router/src/http/types.rs, docs/openapi.json",
    calls=tuple(
        Call(path, _FIELDS, _ANSWER, more=frozenset({"top_n"})) for path in ("/rerank", "/")
    ),
    errors={
        # TEI answers invalid fields with 422, which rankd never sends.
        400: {"error": str, "error_type": "Validation"},
        401: {"error": str, "error_type": str},
        404: {"error": str, "error_type": str},
    },
    gets={
        "/info": {
            "model_id": str,
            "served_model_name": str,
            "model_sha": str,
            "model_dtype": str,
            "model_type": {
                "reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}},
            },
            "max_concurrent_requests": int,
            "max_input_length": int,
            "max_batch_tokens": int,
            "max_batch_requests": None,
            "max_client_batch_size": int,
            "auto_truncate": bool,
            "tokenization_workers": int,
            "version": str,
            "sha": None,
            "docker_label": None,
        },
        "/health": None,
        "/ping": None,
    },
)
