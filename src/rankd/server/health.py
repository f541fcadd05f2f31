"""Routes for operators: health checks, version, metrics and the list of models."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from rankd.ranking.provenance import Provenance
from rankd.ranking.service import ModelService, ServiceDep

router = APIRouter(tags=["operations"])

# Routes that vendors' clients request relative to their base URL, so also below prefixes.
shared = APIRouter(tags=["operations"])

# Paths whose GET needs no key, also below prefixes. They show only what health checks need,
# and what clients request before they send a key.
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
    """Whether a GET of this path needs no key."""
    return path in OPEN_PATHS or path.startswith(("/v1/models/", "/models/"))


@router.get("/livez")
async def livez() -> dict[str, str]:
    """Liveness: 200 while the process can answer."""
    return {"status": "alive"}


@router.get("/readyz")
async def readyz(service: ServiceDep) -> dict[str, str]:
    """Readiness: 200 when the self-check has passed and the engine is alive, otherwise 503."""
    await service.check()
    return {"status": "ready"}


@router.get("/", include_in_schema=False)
async def root(http: Request, service: ServiceDep) -> Response:
    """TEI's clients send their health check here; a browser gets to the page."""
    if "text/html" in http.headers.get("accept", ""):
        return RedirectResponse(http.app.state.home, 307, {"vary": "accept"})
    return JSONResponse(await readyz(service), headers={"vary": "accept"})


class Health(BaseModel):
    status: str
    model_loaded: bool
    model: str = Field(description="Name of the served model.")
    device: str = Field(description="Where it is computed: cpu, cuda or npu.")


@shared.get("/health", summary="Readyz, with the model and its device")
async def health(service: ServiceDep) -> Health:
    """Readiness as other servers call it, with the fields that a tutorial's client reads."""
    await service.check()
    device = service.ranker.engine.info.device
    return Health(status="ready", model_loaded=True, model=service.name, device=device)


@router.get("/version")
async def version(service: ServiceDep) -> Provenance:
    """Versions of the server, engine and model, as in the `rankd` header of every ranking."""
    return service.provenance


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics() -> Response:
    """Metrics in Prometheus' text format."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


class ModelObject(BaseModel):
    id: str
    name: str = Field(description="Same as `id`; Jina's clients read this field.")
    object: str = "model"
    created: int
    owned_by: str = "rankd"
    max_model_len: int = Field(description="Maximum tokens of one pair, template included.")
    # Xinference's client checks this field before it ranks.
    model_type: str = "rerank"
    model_name: str


class ModelList(BaseModel):
    object: str = "list"
    data: list[ModelObject]


@shared.get("/v1/models")
@shared.get("/models", include_in_schema=False)
async def models(service: ServiceDep) -> ModelList:
    """The served model under each of its names, in OpenAI's format."""
    return ModelList(data=[_model(service, name) for name in service.names])


@shared.get("/v1/models/{model:path}")
@shared.get("/models/{model:path}", include_in_schema=False)
async def model(model: str, service: ServiceDep) -> ModelObject:
    """The served model, by any name that requests may use; names may contain slashes."""
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
