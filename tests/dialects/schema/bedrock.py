"""AWS Bedrock's operation Rerank, as botocore's service model states it."""

from __future__ import annotations

from typing import Any

from schema.base import PICTURE, QUERY, TEXTS, Call, Field, Never, Schema

_CONFIGURATION = "rerankingConfiguration.bedrockRerankingConfiguration"
_FIELDS = f"{_CONFIGURATION}.modelConfiguration.additionalModelRequestFields"
_MODEL = f"{_CONFIGURATION}.modelConfiguration.modelArn"


def _query(text: str) -> dict[str, Any]:
    return {"type": "TEXT", "textQuery": {"text": text}}


def _text(text: str) -> dict[str, Any]:
    document = {"type": "TEXT", "textDocument": {"text": text}}
    return {"type": "INLINE", "inlineDocumentSource": document}


def _json(document: Any) -> dict[str, Any]:
    return {
        "type": "INLINE",
        "inlineDocumentSource": {"type": "JSON", "jsonDocument": document},
    }


SCHEMA = Schema(
    dialect="bedrock",
    version="bedrock-agent-runtime 2023-07-26, botocore 1.44.8",
    date="2026-11",
    source="botocore: data/bedrock-agent-runtime/2023-07-26/service-2.json",
    calls=(
        Call(
            "/rerank",
            {
                "queries": Field(
                    ([_query(QUERY)],),
                    required=True,
                    invalid=([], [_query("a"), _query("b")], [_query("")], "a", [3]),
                    lenient=([QUERY],),
                    refused=([{"type": "IMAGE", "textQuery": {"text": QUERY}}],),
                ),
                "sources": Field(
                    (
                        list(map(_text, TEXTS)),
                        [_json({"title": "Texel", "body": TEXTS[0]}), _text(TEXTS[1])],
                        [_json(TEXTS[0])],
                    ),
                    required=True,
                    invalid=([], 3, [3], [{"type": "INLINE", "inlineDocumentSource": {}}]),
                    lenient=(TEXTS,),
                    refused=([_json(3)], [_json({"text": TEXTS[0], **PICTURE})]),
                ),
                "rerankingConfiguration.type": Field(
                    ("BEDROCK_RERANKING_MODEL",), invalid=("OTHER",)
                ),
                _MODEL: Field(
                    ("arn:aws:bedrock:us-west-2::foundation-model/cohere.rerank-v3-5:0", "a-model")
                ),
                f"{_CONFIGURATION}.numberOfResults": Field((1, 50), invalid=(0, -1, "many")),
                # AWS passes these on to the model, and lists none.
                f"{_FIELDS}.instruction": Field(("Find it.",), invalid=(3,)),
                "nextToken": Field((None,), refused=("a-token",)),
            },
            {
                "results": [{"index": int, "relevanceScore": float, "document": Never(dict)}],
                "nextToken": Never(str),
            },
            more=frozenset({f"{_FIELDS}.preset", f"{_FIELDS}.max_tokens_per_doc"}),
        ),
    ),
    # AWS answers a wrong key with 403.
    errors={
        400: {"__type": "ValidationException", "message": str},
        401: {"__type": "AccessDeniedException", "message": str},
        404: {"__type": "ResourceNotFoundException", "message": str},
    },
)
