"""What operators and probes ask: alive, ready, which version, which models."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from rankd.ranking.provenance import Provenance
from rankd.ranking.service import ModelService, ServiceDep

router = APIRouter(tags=["operations"])

# What vendors' clients ask wherever their base URL points; under every prefix, too.
shared = APIRouter(tags=["operations"])

# What may be asked without a key: nothing of it says more than a probe or a client that
# has not yet decided to send one must know. Under every prefix, too.
OPEN_PATHS = frozenset(
    {
        "/livez",
        "/readyz",
        "/health",
        "/",
        "/ping",
        "/info",
        "/meta",
        "/models",
        "/v1/models",
        "/v1/cluster/auth",
        "/v1/health/live",
        "/v1/health/ready",
        "/.well-known/live",
        "/.well-known/ready",
    }
)


def is_open(path: str) -> bool:
    """Whether a GET of it needs no key."""
    return path in OPEN_PATHS or path.startswith(("/v1/models/", "/models/"))


@router.get("/livez")
async def livez() -> dict[str, str]:
    """The process answers."""
    return {"status": "alive"}


@router.get("/readyz")
@router.get("/", include_in_schema=False)  # TEI's clients probe it here.
@shared.get("/health", summary="Readyz, as other servers call it")
async def readyz(service: ServiceDep) -> dict[str, str]:
    """Scores can be had: the self-check has passed and the engine is alive; else 503."""
    await service.check()
    return {"status": "ready"}


@router.get("/version")
async def version(service: ServiceDep) -> Provenance:
    """What runs here; the header `rankd` of every ranking says the same."""
    return service.provenance


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics() -> Response:
    """Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


class ModelObject(BaseModel):
    id: str
    name: str = Field(description="As `id`; where Jina's clients look.")
    object: str = "model"
    created: int
    owned_by: str = "rankd"
    max_model_len: int = Field(description="Tokens of one pair, template included.")
    # What Xinference's client looks at before it ranks.
    model_type: str = "rerank"
    model_name: str


class ModelList(BaseModel):
    object: str = "list"
    data: list[ModelObject]


@shared.get("/v1/models")
@shared.get("/models", include_in_schema=False)
async def models(service: ServiceDep) -> ModelList:
    """The served model by each of its names, as OpenAI lists models."""
    return ModelList(data=[_model(service, name) for name in service.names])


@shared.get("/v1/models/{model:path}")
@shared.get("/models/{model:path}", include_in_schema=False)
async def model(model: str, service: ServiceDep) -> ModelObject:
    """One model, by any name that requests may use; a name may hold slashes."""
    if service.strict and not service.is_called(model):
        raise service.unknown(model)
    return _model(service, model)


def _model(service: ModelService, name: str) -> ModelObject:
    return ModelObject(
        id=name,
        name=name,
        created=service.created,
        max_model_len=service.ranker.engine.info.max_tokens,
        model_name=service.name,
    )
