"""vLLM's scoring API."""

from __future__ import annotations

from typing import Any

from schema.base import OBJECTS, QUERY, TEXTS, Call, Field, Open, Schema

_BLOCKS = {"content": [{"type": "text", "text": TEXTS[0]}]}
_PICTURE = {"content": [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]}

_INSTRUCTION = "Find what answers the question."

# Fields of every pooling request.
_SHARED: dict[str, Field] = {
    "model": Field(("Qwen/Qwen3-Reranker-0.6B", None)),
    "user": Field(("someone",)),
    "truncate_prompt_tokens": Field((-1, 2000), invalid=(-2, "x")),
    "truncation_side": Field(("left", "right"), invalid=("middle",)),
    "padding": Field(("longest",)),
    "request_id": Field(("some-id",)),
    "priority": Field((0, 5), invalid=("high",)),
    "mm_processor_kwargs": Field(({},), invalid=(3,)),
    "cache_salt": Field(("salt",)),
    "use_activation": Field((True, False, None), invalid=("maybe",)),
    "instruction": Field((_INSTRUCTION,), invalid=(3,)),
    "chat_template_kwargs": Field(({"instruction": _INSTRUCTION},), invalid=(3,)),
    "max_tokens_per_query": Field((0, 500), invalid=(-1,)),
    "max_tokens_per_doc": Field((0, 500), invalid=(-1,)),
}
_USAGE = {"prompt_tokens": int, "total_tokens": int}


def _score(left: str, right: str) -> Call:
    return Call(
        "/v1/score",
        {
            **_SHARED,
            left: Field((QUERY, [QUERY], [QUERY] * 3), required=True, invalid=(3, [])),
            right: Field((TEXTS, [_BLOCKS] * 3), required=True, invalid=(3, [])),
        },
        {
            "id": str,
            "object": "list",
            "created": int,
            "model": str,
            "data": [{"index": int, "object": "score", "score": float}],
            "usage": _USAGE,
        },
    )


def _errors(status: int, kind: str) -> dict[str, Any]:
    return {"error": {"message": str, "type": kind, "param": Any, "code": status}}


_CARD = {
    "id": str,
    "object": "model",
    "created": int,
    "owned_by": "vllm",
    "root": str,
    "parent": None,
    "max_model_len": int,
    "permission": list,
}

SCHEMA = Schema(
    dialect="vllm",
    version="vLLM 0.33.0",
    date="2026-11",
    source="vllm: entrypoints/pooling/{base,scoring}/protocol.py, serve/engine/protocol.py",
    calls=(
        *(
            Call(
                path,
                {
                    **_SHARED,
                    "query": Field((QUERY, _BLOCKS), required=True, refused=(_PICTURE,)),
                    "documents": Field(
                        (TEXTS, TEXTS[0], [_BLOCKS], _BLOCKS),
                        required=True,
                        invalid=([], 3),
                        lenient=(OBJECTS,),
                        refused=([_PICTURE],),
                    ),
                    "top_n": Field((0, 1, 50), invalid=("many",)),
                },
                {
                    "id": str,
                    "model": str,
                    "usage": _USAGE,
                    "results": [
                        {
                            "index": int,
                            "document": {"text": str, "multi_modal": None},
                            "relevance_score": float,
                        }
                    ],
                },
                more=frozenset({"return_documents"}),
            )
            for path in ("/rerank", "/v1/rerank", "/v2/rerank")
        ),
        _score("queries", "documents"),
        _score("queries", "items"),
        _score("data_1", "data_2"),
        _score("text_1", "text_2"),
    ),
    errors={
        400: _errors(400, "BadRequestError"),
        404: _errors(404, "NotFoundError"),
        # vLLM's own is the string "Unauthorized", which does not say what is wrong.
        401: {"error": {"message": str, "type": str, "param": Any, "code": 401}},
    },
    gets={
        "/v1/models": {"object": "list", "data": [_CARD]},
        "/version": Open({"version": str}),
    },
)
