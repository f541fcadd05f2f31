"""Elastic's inference API, task type rerank."""

from __future__ import annotations

from typing import Any

from schema.base import OBJECTS, QUERY, TEXTS, Call, Field, Maybe, Schema


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "format": "text", "value": text}


# Since 9.6 a picture may also be a URL.
_PICTURES = (
    {"type": "image", "format": "base64", "value": "data:image/png;base64,AAAA"},
    {"type": "image", "format": "url", "value": "https://example.com/a.png"},
)


def _error(status: int) -> dict[str, Any]:
    cause = {"type": str, "reason": str}
    return {"error": {"root_cause": [cause], **cause}, "status": status}


SCHEMA = Schema(
    dialect="elastic",
    version="Elasticsearch 9.6",
    date="2026-11",
    source="elastic.co/docs/api/elasticsearch, inference-rerank",
    calls=(
        Call(
            "/_inference/rerank/my-endpoint",
            {
                "query": Field(
                    (QUERY, _text(QUERY), {"type": "text", "value": QUERY}),
                    required=True,
                    invalid=("", 3),
                    refused=_PICTURES,
                ),
                "input": Field(
                    (TEXTS, TEXTS[0], [_text(text) for text in TEXTS], _text(TEXTS[0])),
                    required=True,
                    invalid=([], [3]),
                    lenient=(OBJECTS,),
                    refused=tuple([[picture] for picture in _PICTURES]),
                ),
                "top_n": Field((1, 50), invalid=(-1, "many"), lenient=(0,)),
                "return_documents": Field((True, False), invalid=("maybe",)),
                # Of the services `cohere` and `jinaai`; other services have none for a rerank.
                "task_settings.top_n": Field((1, 50), invalid=(-1, "many"), lenient=(0,)),
                "task_settings.return_documents": Field((True, False), invalid=("maybe",)),
            },
            {"rerank": [{"index": int, "relevance_score": float, "text": Maybe(str)}]},
        ),
    ),
    errors={status: _error(status) for status in (400, 401, 404)},
)
