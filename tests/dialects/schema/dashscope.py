"""DashScope's text rerank API: the native and the compatible path."""

from __future__ import annotations

from schema.base import OBJECTS, PICTURE, QUERY, TEXTS, Call, Field, Maybe, Open, Schema

_RANKED = {"index": int, "relevance_score": float, "document": Maybe(Open({"text": str}))}
_QUERY = Field((QUERY, {"text": QUERY}), required=True, invalid=("", 3), refused=(PICTURE,))
_DOCUMENTS = Field((TEXTS, OBJECTS), required=True, invalid=([], [3]), refused=([PICTURE],))
_TOP_N = Field((1, 50), invalid=(-1, "many"))
_INSTRUCT = Field(("Find the passage that answers the question.",), invalid=(3,))
_MODEL = Field(("qwen3-rerank",), required=True)

SCHEMA = Schema(
    dialect="dashscope",
    version="dashscope 2.0.2 (qwen3-rerank, qwen3-vl-rerank)",
    date="2026-11",
    source="help.aliyun.com/zh/model-studio/text-rerank-api; dashscope: rerank/text_rerank.py",
    calls=(
        Call(
            "/api/v1/services/rerank/text-rerank/text-rerank",
            {
                "model": _MODEL,
                "input.query": _QUERY,
                "input.documents": _DOCUMENTS,
                "parameters.top_n": _TOP_N,
                "parameters.return_documents": Field((True, False), invalid=("maybe",)),
                "parameters.instruct": _INSTRUCT,
            },
            {
                "output": {"results": [_RANKED]},
                "usage": {"total_tokens": int},
                "request_id": str,
            },
            more=frozenset({"parameters.preset", "parameters.score_threshold"}),
        ),
        Call(
            "/compatible-api/v1/reranks",
            {
                "model": _MODEL,
                "query": _QUERY,
                "documents": _DOCUMENTS,
                "top_n": _TOP_N,
                "instruct": _INSTRUCT,
            },
            {
                "id": str,
                "object": "list",
                "model": str,
                "results": [_RANKED],
                "usage": {"total_tokens": int},
            },
            more=frozenset({"return_documents"}),
        ),
    ),
    errors={
        status: {"code": code, "message": str, "request_id": str}
        for status, code in ((400, "InvalidParameter"), (401, "InvalidApiKey"))
    }
    | {404: {"code": "ModelNotFound", "message": str, "request_id": str}},
)
