"""Elastic's inference API for reranking, `/_inference/rerank/{id}`.

Elasticsearch's own requests to a reranker have Cohere's or Jina's body, which `openai.py`
answers.
Source: elastic.co, inference API.
"""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rankd.dialects.base import Dialect
from rankd.dialects.envelopes import Failure, openai_error
from rankd.dialects.fields import Count, DocumentList, Query, texts_of
from rankd.dialects.reply import Reply
from rankd.dialects.request import RequestBody, SentFields, example
from rankd.errors import RankError


class TaskSettings(BaseModel):
    model_config = ConfigDict(extra="allow")

    top_n: Count | None = Field(None, ge=0, description="Maximum number of results. Default: all.")
    return_documents: bool | None = Field(
        None, description="Include each text in its result. Default: false."
    )


class ElasticRequest(RequestBody):
    model_config = example(
        {
            "input": ["luke", "like", "leia", "chewy", "r2d2", "star", "wars"],
            "query": "star wars main character",
        }
    )

    sent_names: ClassVar = {"documents": "input"}

    query: Query = Field(description="The search query.")
    input: DocumentList = Field(description="Texts to rank; a single string is one text.")
    top_n: Count | None = Field(None, ge=0, description="Maximum number of results. Default: all.")
    return_documents: bool | None = Field(
        None, description="Include each text in its result. Default: false."
    )
    task_settings: TaskSettings | None = Field(
        None,
        description="`top_n` and `return_documents`, if absent from the body. Default: empty.",
    )

    def sent(self) -> SentFields:
        settings = self.task_settings or TaskSettings()
        returned = self.return_documents
        return SentFields(
            queries=[(self.query, texts_of(self.input, "input"))],
            top_n=settings.top_n if self.top_n is None else self.top_n,
            return_documents=bool(settings.return_documents if returned is None else returned),
            documents=self.input,
        )


class ElasticResult(BaseModel):
    index: int
    relevance_score: float
    text: str | None = Field(None, description="Absent unless requested.")


class ElasticResponse(BaseModel):
    rerank: list[ElasticResult] = Field(description="Most relevant first.")


class Cause(BaseModel):
    type: str
    reason: str


class ElasticError(Cause):
    root_cause: list[Cause]


class ElasticFailure(Failure):
    error: ElasticError
    status: int
    message: str
    detail: str


class Elastic(Dialect):
    name = "elastic"
    about = "Elastic's inference API for reranking."
    Request = ElasticRequest
    response = ElasticResponse
    failure = ElasticFailure
    paths = ("/_inference/rerank/{model:path}",)
    mounted = ()

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "rerank": [
                {"index": result.index, "relevance_score": result.number}
                | ({"text": result.text} if reply.answer.return_documents else {})
                for result in reply.best
            ]
        }

    def error(self, problem: RankError) -> dict[str, Any]:
        cause = {"type": problem.code, "reason": problem.message}
        return openai_error(problem) | {
            "error": {"root_cause": [cause], **cause},
            "status": problem.status,
        }


dialect = Elastic()
