"""Mixedbread's reranking: documents are called `input`.

Source: mixedbread-ai/mixedbread-python, types of 0.54.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, Field

from rankd.dialects.base import BodyMatcher, Dialect
from rankd.dialects.fields import Count, Documents, Query, texts_of
from rankd.dialects.reply import Reply, UsageObject, usage
from rankd.dialects.request import RequestBody, agreed, example
from rankd.types import ScoredDocument


class MixedbreadRequest(RequestBody):
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

    sent_names: ClassVar = {"documents": "input"}

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

    def query_text(self) -> str:
        return self.query

    def document_texts(self) -> tuple[str, ...]:
        return texts_of(self.input, "input", self.fields())

    def fields(self) -> Sequence[str]:
        return self.rank_fields or ()

    def result_limit(self) -> int | None:
        wanted: int | None = agreed(top_k=self.top_k, top_n=self.top_n)
        return None if wanted == -1 else wanted

    def wants_documents(self) -> bool:
        return bool(self.return_input)


class MixedbreadResult(BaseModel):
    index: int
    score: float
    input: Any = Field(None, description="The document as sent; absent when not wanted.")
    object: str


class MixedbreadResponse(BaseModel):
    usage: UsageObject
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
    detection_rank = 40
    matchers = (BodyMatcher.on(input="array"),)

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "usage": usage(reply),
            "model": reply.model,
            "data": [self._result(reply, scored_document) for scored_document in reply.best],
            "object": "list",
            "top_k": len(reply.best),
            "return_input": reply.request.wants_documents(),
        }

    def _result(self, reply: Reply, scored_document: ScoredDocument) -> dict[str, Any]:
        result: dict[str, Any] = {
            "index": scored_document.index,
            "score": reply.number(scored_document),
        }
        if reply.request.wants_documents():
            assert isinstance(reply.request, MixedbreadRequest)
            result["input"] = reply.request.input[scored_document.index]
        result["object"] = "rank_result"
        return result


dialect = Mixedbread()
