"""Mixedbread's reranking API: the documents are in `input`.

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

    query: Query = Field(description="The search query.")
    input: Documents = Field(description="Documents to rank: strings or objects.")
    rank_fields: list[str] | None = Field(
        None,
        description="Fields of object documents to rank by, in this order. Default: `text`, or all "
        "fields of a document without it.",
    )
    top_k: Count | None = Field(
        None, ge=-1, description="Maximum number of results; -1 and 0 return all. Default: all."
    )
    top_n: Count | None = Field(None, ge=0, description="Another name of `top_k`.")
    return_input: bool | None = Field(
        None, description="Include each document in its result. Default: false."
    )

    def query_text(self) -> str:
        return self.query

    def document_texts(self) -> tuple[str, ...]:
        return texts_of(self.input, "input", self.fields())

    def fields(self) -> Sequence[str]:
        return self.rank_fields or ()

    def result_limit(self) -> int | None:
        limit: int | None = agreed(top_k=self.top_k, top_n=self.top_n)
        return None if limit == -1 else limit

    def wants_documents(self) -> bool:
        return bool(self.return_input)


class MixedbreadResult(BaseModel):
    index: int
    score: float
    input: Any = Field(None, description="The document as sent; absent unless requested.")
    object: str


class MixedbreadResponse(BaseModel):
    usage: UsageObject
    model: str
    data: list[MixedbreadResult] = Field(description="Most relevant first.")
    object: str
    top_k: int = Field(description="Number of results.")
    return_input: bool


class Mixedbread(Dialect):
    name = "mixedbread"
    about = "Mixedbread's reranking API."
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
