"""Mixedbread's reranking: documents are called `input`.

Source: mixedbread-ai/mixedbread-python, types of 0.54.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from rankd.dialects.base import (
    Asking,
    Claim,
    Dialect,
    Reply,
    Usage,
    agreed,
    example,
    usage,
)
from rankd.dialects.texts import Count, Documents, Query, texts_of
from rankd.types import Verdict


class MixedbreadRequest(Asking):
    model_config = example(
        {
            "model": "mixedbread-ai/mxbai-rerank-large-v2",
            "query": "Who wrote To Kill a Mockingbird?",
            "input": [
                "To Kill a Mockingbird was written by Harper Lee.",
                "The novel Moby-Dick was written by Herman Melville.",
            ],
            "top_k": 1,
            "return_input": True,
        }
    )

    spelled: ClassVar = {"documents": "input"}

    query: Query = Field(description="The question.")
    input: Documents = Field(description="What to judge: strings or objects.")
    rank_fields: list[str] | None = Field(
        None,
        description="Fields of object documents that are read, in this order; `text`, or else all, "
        "when absent.",
    )
    top_k: Count | None = Field(
        None, ge=-1, description="Results to return; all when absent, -1, 0 or above their number."
    )
    top_n: Count | None = Field(None, ge=0, description="Another name of `top_k`.")
    return_input: bool | None = Field(
        None, description="Whether results repeat their documents; false when absent."
    )

    def question(self) -> str:
        return self.query

    def texts(self) -> tuple[str, ...]:
        return texts_of(self.input, "input", self.fields())

    def fields(self) -> Sequence[str]:
        return self.rank_fields or ()

    def most(self) -> int | None:
        wanted: int | None = agreed(top_k=self.top_k, top_n=self.top_n)
        return None if wanted == -1 else wanted

    def echoes(self) -> bool:
        return bool(self.return_input)


class MixedbreadResult(BaseModel):
    index: int
    score: float
    input: Any = Field(None, description="The document as sent; absent when not wanted.")
    object: str


class MixedbreadResponse(BaseModel):
    usage: Usage
    model: str
    data: list[MixedbreadResult] = Field(description="Most relevant first.")
    object: str
    top_k: int = Field(description="Results returned.")
    return_input: bool


class Mixedbread(Dialect):
    name = "mixedbread"
    about = "Mixedbread's reranking."
    Request = MixedbreadRequest
    response = MixedbreadResponse
    claims = (Claim.on(input="array"),)

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "usage": usage(reply),
            "model": reply.model,
            "data": [self._result(reply, verdict) for verdict in reply.best],
            "object": "list",
            "top_k": len(reply.best),
            "return_input": reply.request.echoes(),
        }

    def _result(self, reply: Reply, verdict: Verdict) -> dict[str, Any]:
        result: dict[str, Any] = {"index": verdict.index, "score": reply.number(verdict)}
        if reply.request.echoes():
            assert isinstance(reply.request, MixedbreadRequest)
            result["input"] = reply.request.input[verdict.index]
        result["object"] = "rank_result"
        return result


dialect = Mixedbread()
