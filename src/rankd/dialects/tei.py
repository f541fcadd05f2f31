"""Hugging Face text-embeddings-inference (TEI): the body has `texts`, the answer is an array.

Source: huggingface/text-embeddings-inference, router/src/http/types.rs and docs/openapi.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from fastapi import APIRouter
from pydantic import BaseModel, Field

from rankd import __version__
from rankd.dialects.base import BodyMatcher, Dialect
from rankd.dialects.envelopes import StringFailure, string_error
from rankd.dialects.fields import Count, Documents, NoTexts, Query, texts_of
from rankd.dialects.reply import Reply
from rankd.dialects.request import RequestBody, SentFields, example
from rankd.errors import RankError
from rankd.ranking.service import ServiceDep
from rankd.types import Side, TruncationPolicy


class TeiRequest(RequestBody):
    model_config = example(
        {
            "query": "What is Deep Learning?",
            "texts": ["Deep Learning is ...", "Cheese is made of milk."],
            "raw_scores": False,
            "return_text": False,
            "truncate": False,
            "truncation_direction": "Right",
        }
    )

    sent_names: ClassVar = {"documents": "texts"}

    query: Query = Field(description="The search query.")
    texts_: Documents = Field(alias="texts", description="Texts to rank.")
    raw_scores: bool | None = Field(
        None, description="true: return raw logits, in nats. Default: false."
    )
    return_text: bool | None = Field(
        None, description="Include each text in its result. Default: false."
    )
    truncate: bool | None = Field(
        None,
        description="true: cut texts that do not fit; false: refuse them (400). Default: the "
        "server's --truncation (true).",
    )
    truncation_direction: Literal["Right", "Left", "right", "left"] | None = Field(
        None,
        description="The end of a long text to cut off; Right is the end of the text. "
        "Default: Right.",
    )
    top_n: Count | None = Field(None, ge=0, description="Maximum number of results. Default: all.")

    def sent(self) -> SentFields:
        direction = self.truncation_direction
        return SentFields(
            queries=[(self.query, texts_of(self.texts_, "texts"))],
            truncation=TruncationPolicy(
                truncation=None if self.truncate is None else "cut" if self.truncate else "refuse",
                side=None if direction is None else _SIDES[direction.lower()],
            ),
            logits=self.raw_scores,
            top_n=self.top_n,
            return_documents=bool(self.return_text),
        )


_SIDES: dict[str, Side] = {"left": "left", "right": "right"}


class TeiRank(BaseModel):
    index: int
    text: str | None = Field(None, description="Absent unless requested.")
    score: float


# TEI's `error_type` by HTTP status; `Backend` for every other status.
_TYPES = {
    400: "Validation",
    401: "Validation",
    404: "Validation",
    405: "Validation",
    413: "Validation",
    415: "Validation",
    429: "Overloaded",
    503: "Unhealthy",
}


router = APIRouter(tags=["tei"])


class Tei(Dialect):
    name = "tei"
    about = "Hugging Face text-embeddings-inference (TEI)."
    get_router = router
    Request = TeiRequest
    response = list[TeiRank]
    failure = StringFailure
    detection_rank = 30
    matchers = (BodyMatcher.on(texts="any"),)
    paths = ("/",)
    adds_headers = True

    def render(self, reply: Reply) -> list[dict[str, Any]]:
        with_texts = reply.answer.return_documents
        return [
            {
                "index": result.index,
                **({"text": result.text} if with_texts else {}),
                "score": result.number,
            }
            for result in reply.best
        ]

    def headers(self, reply: Reply) -> Mapping[str, str]:
        """TEI's headers: times in milliseconds, characters and tokens.

        With an engine that has its own queue, waiting counts as inference time.
        """
        ranking = reply.ranking
        encoding, scoring, queueing = (
            round(seconds * 1000)
            for seconds in (ranking.encoding, ranking.scoring, ranking.queueing)
        )
        total = str(encoding + scoring)
        return {
            "x-compute-type": reply.device,
            "x-compute-time": total,
            "x-compute-characters": str(sum(map(len, reply.request.rank.documents))),
            "x-compute-tokens": str(reply.tokens),
            "x-total-time": total,
            "x-tokenization-time": str(encoding),
            "x-queue-time": str(queueing),
            "x-inference-time": str(scoring - queueing),
        }

    def error(self, problem: RankError) -> dict[str, Any]:
        if isinstance(problem, NoTexts):
            return string_error(problem, "Empty")
        return string_error(problem, _TYPES.get(problem.status, "Backend"))


class Labels(BaseModel):
    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(BaseModel):
    reranker: Labels


class TeiInfo(BaseModel):
    model_id: str
    served_model_name: str
    model_sha: str | None
    model_dtype: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int = Field(description="Maximum tokens per pair, template included.")
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int = Field(description="Maximum texts per request.")
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None
    docker_label: str | None


# For TEI's required limits that rankd does not have.
_UNLIMITED = 2**31 - 1


@router.get("/info")
async def info(service: ServiceDep) -> TeiInfo:
    """The served model and its limits, as TEI describes them."""
    engine = service.ranker.engine.info
    return TeiInfo(
        model_id=service.name,
        served_model_name=service.name,
        model_sha=engine.revision or None,
        model_dtype=engine.dtype,
        model_type=ModelType(reranker=Labels(id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})),
        max_concurrent_requests=_UNLIMITED,
        max_input_length=service.ranker.encoder.max_tokens,
        max_batch_tokens=_UNLIMITED,
        max_batch_requests=None,
        max_client_batch_size=service.ranker.max_documents,
        auto_truncate=service.ranker.encoder.truncation_policy.truncation != "refuse",
        tokenization_workers=2,
        version=__version__,
        sha=None,
        docker_label=None,
    )


@router.get("/ping")
async def ping(service: ServiceDep) -> None:
    """Readiness probe: 200 if documents can be scored, else 503."""
    await service.check()


dialect = Tei()
