"""What operators and probes ask: alive, ready, which version, which models."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from rankd import __version__
from rankd.desk import Desk, DeskDep
from rankd.errors import UnknownModel

router = APIRouter(tags=["operations"])


@router.get("/livez")
@router.head("/livez", include_in_schema=False)
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/readyz")
@router.get("/health", summary="Readyz, as other servers call it")
@router.head("/readyz", include_in_schema=False)
@router.head("/health", include_in_schema=False)
async def readyz(desk: DeskDep) -> dict[str, str]:
    """Scores can be had: the self-check has passed and the engine is alive; else 503."""
    await desk.ranker.engine.check()
    return {"status": "ready"}


@router.get("/version")
async def version(desk: DeskDep) -> dict[str, str]:
    """What runs here."""
    info = desk.ranker.engine.info
    return {
        "version": __version__,
        "engine": info.name,
        "device": info.device,
        "dtype": info.dtype,
        "model": desk.name,
        "revision": info.revision,
    }


@router.get("/metrics", response_class=Response)
async def metrics() -> Response:
    """Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models")
async def models(desk: DeskDep) -> dict[str, Any]:
    """The served model, as OpenAI lists models."""
    return {"object": "list", "data": [_model(desk)]}


@router.get("/v1/models/{model:path}")
async def model(model: str, desk: DeskDep) -> dict[str, Any]:
    """One model, by its name; a name may hold slashes."""
    if model != desk.name and model not in desk.aliases:
        raise UnknownModel(f"model {model!r} is not served here; use {desk.name!r}", param="model")
    return _model(desk)


def _model(desk: Desk) -> dict[str, Any]:
    return {
        "id": desk.name,
        "object": "model",
        "created": desk.created,
        "owned_by": "rankd",
        "max_model_len": desk.ranker.engine.info.max_tokens,
    }
