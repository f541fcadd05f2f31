"""vLLM's score request, `POST /v1/score`, in all four spellings.

One side against the other: 1:1, 1:N and N:N. Scores come back in the order of
the request. Source: vLLM 0.32, `entrypoints/pooling/scoring/protocol.py`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from rankd.desk import DeskDep
from rankd.dialects import wire
from rankd.dialects.openai import Usage, truncations
from rankd.dialects.texts import query_of, text_of
from rankd.errors import InvalidRequest
from rankd.types import Ask, Verdict

router = APIRouter(tags=["score"])

# (queries, documents) as the four spellings name them.
_SPELLINGS = (
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
    ("text_1", "text_2"),
)


class ScoreRequest(BaseModel):
    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "example": {
                "text_1": "What is the capital of China?",
                "text_2": ["The capital of China is Beijing.", "Lions live in Africa."],
            }
        },
    )

    model: str | None = None
    queries: Any = Field(None, description="One query or as many as documents.")
    documents: Any = Field(None, description="One document or many.")
    items: Any = Field(None, description="Another name of `documents`.")
    data_1: Any = Field(None, description="Another name of `queries`.")
    data_2: Any = Field(None, description="Another name of `documents`.")
    text_1: Any = Field(None, description="Another name of `queries`.")
    text_2: Any = Field(None, description="Another name of `documents`.")
    instruction: str | None = Field(None, description="What relevance means for this request.")
    instruct: str | None = Field(None, description="Another name of `instruction`.")
    max_tokens_per_doc: int | None = Field(None, ge=1)
    use_activation: bool | None = Field(None, description="false: raw logits, in nats.")
    priority: int | None = Field(None, ge=0, le=999)
    timeout_ms: int | None = Field(None, ge=1, le=wire.LONGEST_MS)
    user: str | None = None
    truncate_prompt_tokens: int | None = Field(None, description="Accepted; has no effect.")

    def asks(self) -> list[Ask]:
        """One ask for each run of documents that share a query."""
        queries, documents = self._sides()
        if len(queries) == 1:
            queries *= len(documents)
        pairs = zip(queries, documents, strict=True)
        return [
            self._ask(query, [document for _, document in run])
            for query, run in groupby(pairs, key=itemgetter(0))
        ]

    def _sides(self) -> tuple[list[str], list[str]]:
        left, right = self._spelling()
        queries = _texts(getattr(self, left), left, query_of)
        documents = _texts(getattr(self, right), right, text_of)
        if len(queries) not in (1, len(documents)):
            raise InvalidRequest(
                f"{left} has {len(queries)} texts and {right} {len(documents)}; "
                "send one query, or as many as documents",
                param=left,
            )
        return queries, documents

    def _spelling(self) -> tuple[str, str]:
        for left, right in _SPELLINGS:
            if getattr(self, left) is not None and getattr(self, right) is not None:
                return left, right
        pairs = ", ".join(f"{left} and {right}" for left, right in _SPELLINGS)
        raise InvalidRequest(f"send two sides to compare: {pairs}")

    def _ask(self, query: str, documents: Sequence[str]) -> Ask:
        return Ask(
            query=query,
            documents=tuple(documents),
            instruction=self.instruction or self.instruct,
            max_document_tokens=self.max_tokens_per_doc,
            priority=self.priority or 0,
            deadline=wire.deadline(self.timeout_ms),
        )


class Score(BaseModel):
    index: int
    object: str
    score: float = Field(description="In [0, 1], or a logit when asked for.")


class ScoreResponse(BaseModel):
    id: str
    object: str
    created: int
    model: str
    data: list[Score] = Field(description="In the order of the request.")
    usage: Usage


@router.post(
    "/v1/score",
    response_model=None,
    responses={200: {"model": ScoreResponse}},
    openapi_extra=wire.body_of(ScoreRequest),
)
@router.post("/score", include_in_schema=False)
async def score(http: Request, desk: DeskDep) -> Response:
    """Score texts against each other, in the order of the request."""
    request = await wire.read(http, ScoreRequest, desk.ranker.max_documents)
    desk.accept_model(request.model)
    groups = await desk.ranker.rank_all(request.asks())
    verdicts = _renumbered(verdict for group in groups for verdict in group)
    return wire.JSON(_answer(request, verdicts, desk.name_for(request.model)))


def _answer(request: ScoreRequest, verdicts: Sequence[Verdict], model: str) -> dict[str, Any]:
    tokens = sum(verdict.tokens for verdict in verdicts)
    raw = request.use_activation is False
    answer: dict[str, Any] = {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [
            {
                "index": verdict.index,
                "object": "score",
                "score": wire.rounded(verdict.logit if raw else verdict.score),
            }
            for verdict in verdicts
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    warnings = wire.unknown_fields(request, "vllm") + truncations(verdicts)
    if warnings:
        answer["meta"] = {"warnings": warnings}
    return answer


def _renumbered(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Verdicts of several asks count from 0 in each; the answer counts through."""
    return [replace(verdict, index=index) for index, verdict in enumerate(verdicts)]


def _texts(value: Any, name: str, read: Callable[[Any], str]) -> list[str]:
    """One text or many, as a list."""
    values = value if isinstance(value, list) else [value]
    if not values:
        raise InvalidRequest(f"{name} must not be empty", param=name)
    texts = []
    for place, one in enumerate(values):
        path = f"{name}[{place}]" if isinstance(value, list) else name
        try:
            texts.append(read(one))
        except ValueError as problem:
            raise InvalidRequest(f"{path} {problem}", param=path) from None
    return texts
