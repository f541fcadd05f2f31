"""rankd's own client, for servers that answer less than rankd does."""

from __future__ import annotations

from typing import Any

from rankd.client import AsyncClient, RerankRequest, RerankResponse, Result, Usage
from rankd.client.call import Call


def open_client(url: str, **options: Any) -> AsyncClient:
    return _AnyServer(url, **options)


class _AnyServer(AsyncClient):
    """Of an answer only the results must be there: Cohere's names no model and no usage."""

    def _rerank(self, request: RerankRequest) -> Call[RerankResponse]:
        call = super()._rerank(request)
        call.read = _response
        return call


def _response(answer: Any) -> RerankResponse:
    return RerankResponse(
        tuple(
            Result(int(result["index"]), float(result["relevance_score"]), None)
            for result in answer["results"]
        ),
        model=answer.get("model") or "",
        id=answer.get("id") or "",
        usage=Usage(0, 0),
        warnings=tuple((answer.get("meta") or {}).get("warnings") or ()),
    )
