"""Our own manner, `POST /v1/rerank`: what Cohere, Jina and vLLM clients send, and more.

The answer is the superset that all of them can read: vLLM's fields, Cohere's
`meta`, Jina's `usage`. Absent is absent, never null.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, FailFast, Field

from rankd.desk import DeskDep
from rankd.dialects import wire
from rankd.dialects.texts import Query, Text
from rankd.types import Ask, Verdict, best_first

router = APIRouter(tags=["rerank"])


class RerankRequest(BaseModel):
    # Unknown fields are kept, so that the answer can name them.
    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "query": "What is the capital of China?",
                "documents": [
                    "The capital of China is Beijing.",
                    "Gravity is a force that attracts two bodies towards each other.",
                ],
            }
        },
    )

    query: Query = Field(description="The question, as a string or `{text}`.")
    documents: Annotated[list[Text], FailFast()] = Field(
        description="What to judge, as strings or `{text}`."
    )
    model: str | None = Field(None, description="The served model when absent.")
    top_n: int | None = Field(None, ge=0, description="Results to return; all when absent or 0.")
    return_documents: bool | None = Field(None, description="Repeat the texts; true when absent.")
    instruction: str | None = Field(None, description="What relevance means for this request.")
    instruct: str | None = Field(None, description="Another name of `instruction`.")
    task: str | None = Field(None, description="Another name of `instruction`.")
    max_tokens_per_doc: int | None = Field(
        None, ge=1, description="Tokens of a document that are read; the rest is cut."
    )
    use_activation: bool | None = Field(None, description="false: raw logits, in nats.")
    raw_scores: bool | None = Field(None, description="true: raw logits, in nats.")
    priority: int | None = Field(None, ge=0, le=999, description="Lower is sooner.")
    timeout_ms: int | None = Field(
        None, ge=1, le=wire.LONGEST_MS, description="Milliseconds the answer is awaited."
    )
    user: str | None = Field(None, description="Who asks on your side; noted, not judged.")
    # vLLM's benchmark sends it; documents are cut to fit here in any case.
    truncate_prompt_tokens: int | None = Field(None, description="Accepted; has no effect.")

    def ask(self) -> Ask:
        return Ask(
            query=self.query,
            documents=tuple(self.documents),
            instruction=self.instruction or self.instruct or self.task,
            max_document_tokens=self.max_tokens_per_doc,
            priority=self.priority or 0,
            deadline=wire.deadline(self.timeout_ms),
        )

    @property
    def wants_logits(self) -> bool:
        return self.use_activation is False or self.raw_scores is True


class Document(BaseModel):
    text: str


class Result(BaseModel):
    index: int = Field(description="Place of the document in the request, from 0.")
    relevance_score: float = Field(description="In [0, 1], or a logit when asked for.")
    document: Document | None = None


class Usage(BaseModel):
    prompt_tokens: int = Field(description="Tokens of every pair, template included.")
    total_tokens: int


class RerankResponse(BaseModel):
    id: str
    object: str
    created: int
    model: str
    results: list[Result] = Field(description="Most relevant first.")
    meta: dict[str, Any]
    usage: Usage


@router.post(
    "/v1/rerank",
    response_model=None,
    responses={200: {"model": RerankResponse}},
    openapi_extra=wire.body_of(RerankRequest),
)
@router.post("/rerank", include_in_schema=False)
@router.post("/v2/rerank", include_in_schema=False)
async def rerank(http: Request, desk: DeskDep) -> Response:
    """Order documents by their relevance to a query, most relevant first."""
    request = await wire.read(http, RerankRequest, desk.ranker.max_documents)
    desk.accept_model(request.model)
    verdicts = await desk.ranker.rank(request.ask())
    return wire.JSON(_answer(request, verdicts, desk.name_for(request.model)))


def _answer(request: RerankRequest, verdicts: Sequence[Verdict], model: str) -> dict[str, Any]:
    tokens = sum(verdict.tokens for verdict in verdicts)
    return {
        "id": f"rerank-{uuid.uuid4().hex}",
        "object": "rerank",
        "created": int(time.time()),
        "model": model,
        "results": _results(request, verdicts),
        "meta": _meta(request, verdicts, tokens),
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _results(request: RerankRequest, verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    results = []
    for verdict in best_first(verdicts)[: request.top_n or None]:
        number = verdict.logit if request.wants_logits else verdict.score
        result: dict[str, Any] = {
            "index": verdict.index,
            "relevance_score": wire.rounded(number),
        }
        if request.return_documents is not False:
            result["document"] = {"text": request.documents[verdict.index]}
        results.append(result)
    return results


def _meta(request: RerankRequest, verdicts: Sequence[Verdict], tokens: int) -> dict[str, Any]:
    meta: dict[str, Any] = {
        "api_version": {"version": "2"},
        # Cohere's unit: a query with up to a hundred documents.
        "billed_units": {"search_units": -(-len(verdicts) // 100)},
        "tokens": {"input_tokens": tokens, "output_tokens": 0},
    }
    warnings = wire.unknown_fields(request, "openai") + truncations(verdicts)
    if warnings:
        meta["warnings"] = warnings
    return meta


def truncations(verdicts: Sequence[Verdict]) -> list[str]:
    """Which documents were cut, and by how much."""
    return [
        f"document {verdict.index} was cut from {verdict.document_tokens} "
        f"to {verdict.kept_tokens} tokens"
        for verdict in verdicts
        if verdict.truncated
    ]
