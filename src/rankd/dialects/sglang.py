"""SGLang's rerank API, under the prefix `/sglang`: the answer is a bare array.

Without the prefix its body looks the same as Cohere's.
Source: sgl-project/sglang, srt/entrypoints/openai/serving_rerank.py.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from rankd.dialects.base import Dialect
from rankd.dialects.envelopes import ErrorObject, Failure, openai_error
from rankd.dialects.reply import Reply
from rankd.dialects.request import EchoingDocumentsBody, example
from rankd.errors import RankError


class SGLangRequest(EchoingDocumentsBody):
    model_config = example(
        {
            "query": "What is the capital of France?",
            "documents": ["Paris is the capital of France.", "Bread is made of flour."],
            "instruct": "Find the passage that answers the question.",
            "top_n": 1,
        }
    )


class MetaInfo(BaseModel):
    id: str
    prompt_tokens: int = Field(description="Tokens of this pair, template included.")


class SGLangResult(BaseModel):
    score: float
    document: str | None = Field(None, description="Absent unless requested.")
    index: int
    meta_info: MetaInfo


class SGLangFailure(Failure):
    object: str
    message: str
    type: str
    param: str | None
    code: int
    detail: str
    error: ErrorObject


class SGLang(Dialect):
    name = "sglang"
    about = "SGLang's rerank API: the answer is a bare array."
    Request = SGLangRequest
    response = list[SGLangResult]
    failure = SGLangFailure

    def render(self, reply: Reply) -> list[dict[str, Any]]:
        with_documents = reply.answer.return_documents
        return [
            {
                "score": result.number,
                **({"document": result.text} if with_documents else {}),
                "index": result.index,
                "meta_info": {"id": reply.id, "prompt_tokens": result.scored.tokens},
            }
            for result in reply.best
        ]

    def error(self, problem: RankError) -> dict[str, Any]:
        return {
            "object": "error",
            "type": problem.kind,
            "param": problem.param,
            "code": problem.status,
            **openai_error(problem),
        }


dialect = SGLang()
