"""DeepInfra's inference API, for rerankers."""

from __future__ import annotations

from schema.base import OBJECTS, QUERY, TEXTS, Call, Field, Schema

_MORE = {
    "instruction": Field(("Find what answers the question.",), invalid=(3,)),
    "service_tier": Field(("default", "priority"), invalid=(3,)),
    "webhook": Field((None,), refused=("https://example.com/hook",)),
}
_DOCUMENTS = Field((TEXTS,), required=True, invalid=([], 3), lenient=(TEXTS[0], OBJECTS))
_ANSWER = {
    "scores": [float],
    "input_tokens": int,
    "request_id": str,
    "inference_status": {
        "status": "succeeded",
        "runtime_ms": int,
        "cost": 0.0,
        "tokens_generated": 0,
        "tokens_input": int,
        "output_length": 0,
    },
}
_PATH = "/v1/inference/Qwen/Qwen3-Reranker-8B"

SCHEMA = Schema(
    dialect="deepinfra",
    version="API of 2026-11 (Qwen3-Reranker), LiteLLM 1.106.2",
    date="2026-11",
    source="docs.deepinfra.com/apis/reranker; deepinfra.com/Qwen/Qwen3-Reranker-8B/api; "
    "litellm: llms/deepinfra/rerank/transformation.py",
    calls=(
        # The Qwen3 models.
        Call(
            _PATH,
            {
                "queries": Field(
                    ([QUERY], [QUERY] * 3, [QUERY, "a", "b"]),
                    required=True,
                    invalid=([], [QUERY] * 2, [""], 3),
                    lenient=(QUERY,),
                ),
                "documents": _DOCUMENTS,
                **_MORE,
            },
            _ANSWER,
        ),
        # The cross-encoders.
        Call(
            _PATH,
            {
                "query": Field((QUERY,), required=True, invalid=("", 3)),
                "documents": _DOCUMENTS,
                **_MORE,
            },
            _ANSWER,
            told_by="query",
        ),
    ),
    errors={status: {"detail": {"error": str}} for status in (400, 401, 404)},
)
