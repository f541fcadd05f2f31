"""NVIDIA NIM's ranking API: `query.text`, `passages[].text`, and raw logits as scores.

Source: docs.nvidia.com, NeMo Retriever reranking NIM; langchain-nvidia-ai-endpoints 1.5.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from rankd.dialects.base import BodyMatcher, Dialect
from rankd.dialects.envelopes import StringFailure, string_error
from rankd.dialects.fields import Count, Documents, Query, texts_of
from rankd.dialects.reply import Reply, UsageObject, usage
from rankd.dialects.request import RequestBody, SentFields, Spellings, example
from rankd.errors import RankError
from rankd.ranking.service import ServiceDep
from rankd.types import TruncationPolicy


class NimRequest(RequestBody):
    model_config = example(
        {
            "model": "nvidia/llama-nemotron-rerank-1b-v2",
            "query": {"text": "which way did the traveler go?"},
            "passages": [
                {"text": "two roads diverged in a yellow wood, and sorry I was"},
                {"text": "then took the other, as just as fair"},
            ],
            "truncate": "END",
        }
    )

    sent_names: ClassVar = {"documents": "passages"}

    query: Query = Field(description="The search query, as `{text}` or a string.")
    passages: Documents = Field(description="Passages to rank, as `{text}` or strings.")
    truncate: Literal["NONE", "END", "START"] | None = Field(
        None,
        description="For passages that do not fit: END or START cuts that end, NONE refuses (400). "
        "Default: the server's --truncation (END).",
    )
    top_k: Count | None = Field(None, ge=0, description="Maximum number of rankings. Default: all.")
    top_n: Count | None = Field(None, ge=0, description="Another name of `top_k`.")

    def sent(self) -> SentFields:
        return SentFields(
            queries=[(self.query, texts_of(self.passages, "passages"))],
            # NIM's default is NONE: one long passage would fail the whole request. Here the
            # server's --truncation applies, and `x-rankd-warnings` names passages that were cut.
            truncation=_TRUNCATION[self.truncate],
            top_n=Spellings(top_k=self.top_k, top_n=self.top_n),
            logits=True,
        )


_TRUNCATION = {
    None: TruncationPolicy(),
    "NONE": TruncationPolicy(truncation="refuse"),
    "START": TruncationPolicy(truncation="cut", side="left"),
    "END": TruncationPolicy(truncation="cut", side="right"),
}


class NimRanking(BaseModel):
    index: int
    logit: float = Field(description="log p(yes) - log p(no), in nats.")


class NimResponse(BaseModel):
    rankings: list[NimRanking] = Field(description="Most relevant first.")
    usage: UsageObject


class NimFailure(StringFailure):
    object: str
    type: str


router = APIRouter(tags=["nim"])


class Nim(Dialect):
    name = "nim"
    about = "NVIDIA NIM's ranking API."
    get_router = router
    Request = NimRequest
    response = NimResponse
    failure = NimFailure
    detection_rank = 20
    matchers = (BodyMatcher.on(passages="any"),)
    paths = ("/v1/ranking", "/ranking", "/v1/retrieval/{model:path}/reranking")

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "rankings": [{"index": result.index, "logit": result.number} for result in reply.best],
            "usage": usage(reply),
        }

    def error(self, problem: RankError) -> dict[str, Any]:
        return string_error(problem, problem.kind) | {"object": "error", "type": problem.kind}


class NimHealth(BaseModel):
    object: str = "health.response"
    message: str
    status: str


@router.get("/v1/health/live")
async def live() -> NimHealth:
    """Liveness probe: the process answers."""
    return NimHealth(message="Service is live.", status="live")


@router.get("/v1/health/ready")
async def ready(service: ServiceDep) -> NimHealth:
    """Readiness probe: 200 if documents can be scored, else 503."""
    await service.check()
    return NimHealth(message="Service is ready.", status="ready")


dialect = Nim()
