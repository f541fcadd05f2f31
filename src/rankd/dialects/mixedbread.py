"""Mixedbread's reranking API: the documents are in `input`.

Source: mixedbread-ai/mixedbread-python, types of 0.54.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, Field

from rankd.dialects.base import BodyMatcher, Dialect
from rankd.dialects.fields import Count, Documents, Query, texts_of
from rankd.dialects.reply import AnswerResult, Reply, UsageObject, usage
from rankd.dialects.request import RequestBody, SentFields, Spellings, example


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

    def sent(self) -> SentFields:
        return SentFields(
            queries=[(self.query, texts_of(self.input, "input", self.rank_fields or ()))],
            top_n=Spellings(top_k=self.top_k, top_n=self.top_n),
            return_documents=bool(self.return_input),
            documents=self.input,
        )


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
            "data": [self._result(reply, result) for result in reply.best],
            "object": "list",
            "top_k": len(reply.best),
            "return_input": reply.answer.return_documents,
        }

    def _result(self, reply: Reply, result: AnswerResult) -> dict[str, Any]:
        answer = reply.answer
        return {
            "index": result.index,
            "score": result.number,
            **({"input": answer.documents[result.index]} if answer.return_documents else {}),
            "object": "rank_result",
        }


dialect = Mixedbread()
