"""Xinference's rerank API, under the prefix `/xinference`, and its `/v1/cluster/auth`.

Source: xorbitsai/inference, xinference/api/restful_api.py; xinference-client 4.1.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import AliasChoices, BaseModel, Field

from rankd.dialects.base import Dialect
from rankd.dialects.fields import Count
from rankd.dialects.openai import Tokens, instruction_in
from rankd.dialects.reply import Reply, ResultObject, results
from rankd.dialects.request import DocumentsBody, SentFields, example
from rankd.ranking.service import ServiceDep
from rankd.types import TruncationPolicy


class XinferenceRequest(DocumentsBody):
    model_config = example(
        {
            "model": "bge-reranker-base",
            "query": "A man is eating pasta.",
            "documents": ["A man is eating food.", "A woman is playing violin."],
            "return_documents": True,
            "kwargs": "{}",
        }
    )

    return_len: bool | None = Field(
        None, description="Accepted without effect: answers always have token counts."
    )
    max_chunks_per_doc: Count | None = Field(
        None,
        ge=1,
        description="Maximum chunks per long document. Default: the server's --truncation (cut).",
    )
    kwargs_: str | dict[str, Any] | None = Field(
        None,
        validation_alias=AliasChoices("kwargs"),
        description="A JSON object, or its text; only `instruction` is read. Default: empty.",
    )

    def sent(self) -> SentFields:
        sent = self.sent_documents()
        sent.truncation = TruncationPolicy(chunks=self.max_chunks_per_doc)
        sent.instructions = instruction_in("kwargs", self.kwargs_)
        return sent


class XinferenceMeta(BaseModel):
    api_version: None
    billed_units: None
    tokens: Tokens
    warnings: list[str] | None


class XinferenceResponse(BaseModel):
    id: str
    results: list[ResultObject] = Field(description="Most relevant first.")
    meta: XinferenceMeta


router = APIRouter(tags=["xinference"])


class Xinference(Dialect):
    name = "xinference"
    about = "Xinference's rerank API."
    get_router = router
    Request = XinferenceRequest
    response = XinferenceResponse

    def render(self, reply: Reply) -> dict[str, Any]:
        return {
            "id": reply.id,
            "results": results(reply),
            # Xinference sends null fields as well.
            "meta": {
                "api_version": None,
                "billed_units": None,
                "tokens": {"input_tokens": reply.tokens, "output_tokens": 0},
                "warnings": list(reply.warnings) or None,
            },
        }


class Auth(BaseModel):
    auth: bool = Field(
        description="Whether the server requires an API key. If false, clients send none."
    )


@router.get("/v1/cluster/auth")
async def cluster_auth(service: ServiceDep) -> Auth:
    """Whether the server requires an API key. Clients call this without one."""
    return Auth(auth=service.needs_key)


dialect = Xinference()
