"""vLLM's scoring API: `/score` with its four pairs of field names, `/rerank`, `/tokenize`.

A score request pairs queries with documents 1:1, 1:N or N:N; scores keep the request's order.
vLLM's rerank body is answered by `openai.py` without a prefix, and exactly as vLLM answers it
under the prefix `/vllm`.
Source: vLLM 0.33, `entrypoints/pooling/scoring/protocol.py`.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import Any, ClassVar

from fastapi import Request, Response
from pydantic import BaseModel, ConfigDict, Field

from rankd.context import CALLER
from rankd.dialects import handler, json_io
from rankd.dialects.base import Dialect, ExtraRoute
from rankd.dialects.envelopes import Failure, openai_error
from rankd.dialects.fields import (
    Count,
    NoTexts,
    Number,
    Side,
    query_of,
    refuse_json_array,
    text_at,
)
from rankd.dialects.headers import answer_headers, warning_header
from rankd.dialects.openai import instruction_in
from rankd.dialects.prefix_routes import prefix_router
from rankd.dialects.reply import Reply, UsageObject, renumbered, usage
from rankd.dialects.request import (
    MODEL_DESCRIPTION,
    DocumentsBody,
    SentFields,
    example,
    unknown_fields,
)
from rankd.dialects.resolved import ResolvedRequest
from rankd.dialects.text_objects import text_of
from rankd.dialects.vllm_options import VllmOptions
from rankd.dialects.warnings import answer_warnings, count_unknown_fields, field_warnings
from rankd.errors import InvalidRequest, RankError
from rankd.ranking.service import ModelService, ServiceDep, service_of
from rankd.types import ScoredDocument, TruncationPolicy, shown_numbers

# The four pairs of field names for (queries, documents).
_FIELD_PAIRS = (
    ("queries", "documents"),
    ("queries", "items"),
    ("data_1", "data_2"),
    ("text_1", "text_2"),
)


class _Scoring(VllmOptions):
    """Fields that vLLM's rerank and score requests share."""

    max_tokens_per_doc: Count | None = Field(
        None,
        ge=0,
        description="Maximum tokens per document; 0 is the default. Default: all that fit.",
    )

    def with_shared(self, sent: SentFields) -> SentFields:
        """Adds these fields to those of the request's kind."""
        sent.truncation = TruncationPolicy(
            tokens=self.max_tokens_per_doc or None,
            truncation=None if self.truncate_prompt_tokens is None else "cut",
            side=self.truncation_side,
        )
        self.add_limits(sent)
        sent.logits = self.use_activation is False
        sent.instructions = instruction_in("chat_template_kwargs", self.chat_template_kwargs)
        return sent


class VllmRerankRequest(_Scoring, DocumentsBody):
    model_config = example(
        {
            "model": "BAAI/bge-reranker-base",
            "query": "What is the capital of France?",
            "documents": [
                "The capital of Brazil is Brasilia.",
                "The capital of France is Paris.",
            ],
        }
    )

    return_documents: bool | None = Field(
        None, description="Accepted without effect: vLLM always returns the documents."
    )

    def sent(self) -> SentFields:
        sent = self.with_shared(super().sent())
        sent.return_documents = True
        return sent


class VllmDocument(BaseModel):
    text: str
    multi_modal: None


class VllmResult(BaseModel):
    index: int
    document: VllmDocument
    relevance_score: float


class VllmRerankResponse(BaseModel):
    id: str
    model: str
    usage: UsageObject
    results: list[VllmResult] = Field(description="Most relevant first.")


class VllmError(BaseModel):
    message: str
    type: str
    param: str | None
    code: int


class VllmFailure(Failure):
    error: VllmError
    message: str
    detail: str


# vLLM's error `type` by HTTP status, where it differs from OpenAI's.
_TYPES = {400: "BadRequestError", 404: "NotFoundError", 500: "InternalServerError"}


router = prefix_router("vllm")


class Vllm(Dialect):
    name = "vllm"
    about = "vLLM's scoring API."
    prefix_router = router
    Request = VllmRerankRequest
    response = VllmRerankResponse
    failure = VllmFailure

    def extra_routes(self) -> tuple[ExtraRoute, ...]:
        everywhere = (None, "vllm", "openai")
        return (
            ExtraRoute(
                ("/v1/score", "/score"),
                everywhere,
                score,
                "Score texts against each other, in the order of the request",
                (VllmScoreRequest,),
                (VllmScoreResponse,),
            ),
            ExtraRoute(
                ("/tokenize",),
                everywhere,
                tokenize,
                "The token ids of a text as documents are read: without the template",
                (TokenizeRequest,),
                (TokenizeResponse,),
                ranks=False,
            ),
            ExtraRoute(
                ("/invocations",),
                ("vllm",),
                invocations,
                "SageMaker's only path: a score request, or a rerank request",
                (VllmScoreRequest, VllmRerankRequest),
                (VllmScoreResponse, VllmRerankResponse),
                shown=False,
            ),
        )

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "id": f"rerank-{reply.id}",
            "model": reply.model,
            "usage": usage(reply),
            "results": [
                {
                    "index": result.index,
                    "document": {"text": result.text, "multi_modal": None},
                    "relevance_score": result.number,
                }
                for result in reply.best
            ],
        }

    def error(self, problem: RankError) -> dict[str, Any]:
        error = {
            "message": problem.message,
            "type": _TYPES.get(problem.status, problem.kind),
            "param": problem.param,
            "code": problem.status,
        }
        return openai_error(problem) | {"error": error}


class VllmScoreRequest(_Scoring):
    model_config = example(
        {
            "text_1": "What is the capital of China?",
            "text_2": ["The capital of China is Beijing.", "Lions live in Africa."],
        }
    )

    queries: Side | None = Field(
        None, description="One query, or one per document; absent if another pair of names is used."
    )
    documents: Side | None = Field(
        None, description="One or several documents; absent if another pair of names is used."
    )
    items: Side | None = Field(None, description="Another name of `documents`.")
    data_1: Side | None = Field(None, description="Another name of `queries`.")
    data_2: Side | None = Field(None, description="Another name of `documents`.")
    text_1: Side | None = Field(None, description="Another name of `queries`.")
    text_2: Side | None = Field(None, description="Another name of `documents`.")
    partial: bool | None = Field(
        None, description="Accepted without effect: every score is returned."
    )
    score_threshold: Number | None = Field(
        None,
        allow_inf_nan=False,
        description="Accepted without effect: every score is returned.",
    )

    accepts_partial: ClassVar[bool] = False
    applies_threshold: ClassVar[bool] = False

    def sent(self) -> SentFields:
        """Each run of documents that have the same query is ranked as one request."""
        left, right = self._field_pair()
        queries, documents = self._texts(left, right)
        if len(queries) == 1:
            queries *= len(documents)
        pairs = zip(queries, documents, strict=True)
        return self.with_shared(
            SentFields(
                queries=[
                    (query, tuple([document for _, document in run]))
                    for query, run in groupby(pairs, key=itemgetter(0))
                ],
                names={"query": left, "documents": right},
            )
        )

    def _texts(self, left: str, right: str) -> tuple[list[str], list[str]]:
        queries = _read_texts(getattr(self, left), left, query_of)
        documents = _read_texts(getattr(self, right), right, text_of)
        if len(queries) not in (1, len(documents)):
            raise InvalidRequest(
                f"{left} has {len(queries)} texts and {right} {len(documents)}; "
                "send one query, or one per document",
                param=left,
            )
        return queries, documents

    def _field_pair(self) -> tuple[str, str]:
        """The names under which the body has its queries and its documents."""
        sent = [
            (left, right)
            for left, right in _FIELD_PAIRS
            if getattr(self, left) is not None and getattr(self, right) is not None
        ]
        if len(sent) == 1:
            return sent[0]
        if sent:
            pairs = " and ".join(" with ".join(pair) for pair in sent)
            raise InvalidRequest(f"{pairs}: send only one pair", param=sent[1][1])
        pairs = ", ".join(f"{left} and {right}" for left, right in _FIELD_PAIRS)
        raise InvalidRequest(f"send queries and documents as one of these pairs: {pairs}")


class VllmScore(BaseModel):
    index: int
    object: str
    score: float = Field(description="In [0, 1], or a logit if raw logits were requested.")


class VllmScoreResponse(BaseModel):
    id: str
    object: str
    created: int
    model: str
    data: list[VllmScore] = Field(description="In the order of the request.")
    usage: UsageObject
    meta: dict[str, list[str]] | None = Field(
        None, description="`warnings`; absent if there are none."
    )


def is_score(body: Mapping[str, Any]) -> bool:
    """Whether a body is a score request rather than a rerank request."""
    # Bedrock's rerank request has `queries`, too.
    names = {name for pair in _FIELD_PAIRS for name in pair if name != "documents"}
    return not names.isdisjoint(body) and "sources" not in body


async def score(http: Request) -> Response:
    """Score queries against documents, in the order of the request."""
    service = service_of(http)
    return await score_body(http, service, await handler.read_body(http, service))


async def invocations(http: Request) -> Response:
    """A score request, or a rerank request in vLLM's form."""
    service = service_of(http)
    body = await handler.read_body(http, service)
    if is_score(body):
        return await score_body(http, service, body)
    return await handler.answer(http, service, dialect, body)


async def score_body(http: Request, service: ModelService, body: Mapping[str, Any]) -> Response:
    """As `score`, for a body that is parsed already."""
    request = await handler.run_on_body(http, _read_score, http, service, body)
    ranked = await handler.rank(http, service, dialect, request)
    scored_documents = renumbered(ranked.result.documents)
    count_unknown_fields(request.unknown_fields, dialect.name)
    warnings = answer_warnings(
        request, scored_documents, [result for result in scored_documents if result.truncated]
    )
    headers = answer_headers(warnings, ranked.result.usage, None)
    with ranked.timings.stage("render"):
        return json_io.JsonResponse(
            _answer(request, scored_documents, warnings),
            headers={**service.provenance.header, **request.profile.header, **headers},
        )


def _read_score(http: Request, service: ModelService, body: Mapping[str, Any]) -> ResolvedRequest:
    return handler.resolve(http, service, json_io.validate(VllmScoreRequest, body))


class ModelCard(BaseModel):
    id: str
    object: str = "model"
    created: int
    owned_by: str = "vllm"
    root: str = Field(description="The served model's name; `id` may be an alias of it.")
    parent: None = None
    max_model_len: int = Field(description="Maximum tokens of one pair, template included.")
    permission: list[dict[str, Any]] = []


class ModelCards(BaseModel):
    object: str = "list"
    data: list[ModelCard]


@router.get("/v1/models", name="vllm_models")
@router.get("/models", include_in_schema=False)
async def models(service: ServiceDep) -> ModelCards:
    """The served model under each of its names, as vLLM lists its models."""
    return ModelCards(
        data=[
            ModelCard(
                id=name,
                created=service.created,
                root=service.name,
                max_model_len=service.ranker.engine.info.max_tokens,
            )
            for name in service.names
        ]
    )


class TokenizeRequest(BaseModel):
    model_config = ConfigDict(
        extra="allow", json_schema_extra={"example": {"prompt": "The capital of China"}}
    )

    model: str | None = Field(None, description=MODEL_DESCRIPTION)
    prompt: str = Field(description="The text; control tokens in it are read as text.")
    add_special_tokens: bool | None = Field(
        None, description="Accepted without effect: the model's tokenizer adds none."
    )
    return_token_strs: bool | None = Field(
        None, description="Return each token as a string as well. Default: false."
    )


class TokenizeResponse(BaseModel):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


async def tokenize(http: Request) -> Response:
    """Token ids of a text, encoded like a document and without the template."""
    service = service_of(http)
    request = json_io.validate(TokenizeRequest, await handler.read_body(http, service))
    service.accept_model(request.model)
    unknown = unknown_fields(request)
    count_unknown_fields(unknown, dialect.name)
    encoder = service.ranker.encoder
    ids = await service.tokenize(request.prompt, http.scope.get(CALLER, ""))
    texts = None
    if request.return_token_strs:
        texts = await handler.run_on_body(http, encoder.decode, ids)
    return json_io.JsonResponse(
        {
            "count": len(ids),
            "max_model_len": encoder.max_tokens,
            "tokens": ids,
            "token_strs": texts,
        },
        headers=warning_header(field_warnings(unknown)),
    )


def _answer(
    request: ResolvedRequest, scored_documents: Sequence[ScoredDocument], warnings: Sequence[str]
) -> dict[str, Any]:
    tokens = sum(scored_document.tokens for scored_document in scored_documents)
    numbers = shown_numbers(scored_documents, logits=request.answer.logits)
    answer: dict[str, Any] = {
        "id": f"score-{uuid.uuid4().hex}",
        "object": "list",
        "created": int(time.time()),
        "model": request.model,
        "data": [
            {"index": index, "object": "score", "score": number}
            for index, number in enumerate(numbers)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    if warnings:
        answer["meta"] = {"warnings": list(warnings)}
    return answer


def _read_texts(value: Any, name: str, read: Callable[[Any], str]) -> list[str]:
    """The texts of a field that holds one text or an array of them."""
    if not isinstance(value, list):
        return [text_at(value, name, partial(_read_one, read))]
    if not value:
        raise NoTexts(f"{name} must not be empty", param=name)
    return [text_at(item, f"{name}[{index}]", read) for index, item in enumerate(value)]


def _read_one(read: Callable[[Any], str], value: Any) -> str:
    if isinstance(value, str):
        refuse_json_array(value)
    return read(value)


dialect = Vllm()
