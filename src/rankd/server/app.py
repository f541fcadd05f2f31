"""The front door: settings in, ASGI app out. The only place where rooms meet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from rankd import __version__, batches, dialects, ui
from rankd.config.settings import Settings
from rankd.config.suggest import nearest
from rankd.context import ARRIVED, CALLER, PREFIX
from rankd.dialects.envelopes import OpenAIFailure
from rankd.dialects.openapi import completed, failures
from rankd.engines import open_engine
from rankd.errors import (
    BadSettings,
    InternalError,
    NotFound,
    RankError,
    SelfCheckFailed,
    WrongMethod,
)
from rankd.models.checkpoint import Checkpoint, locate
from rankd.models.download import in_thread
from rankd.prompts import open_encoder
from rankd.prompts.encoder import MAX_INSTRUCTION_TOKENS
from rankd.ranking import self_check
from rankd.ranking.admission import Admission
from rankd.ranking.cache import open_cache
from rankd.ranking.profiles import Profiles
from rankd.ranking.ranker import Ranker
from rankd.ranking.rate_limits import open_rate_limiter
from rankd.ranking.scheduler import open_scheduler
from rankd.ranking.service import ModelService
from rankd.server import health
from rankd.server.middleware import (
    AccessLogMiddleware,
    ApiKeyMiddleware,
    BodyLimitMiddleware,
    DrainMiddleware,
    KeyRing,
    PathPrefixMiddleware,
)
from rankd.telemetry import metrics
from rankd.telemetry.startup import StartupStep, report_step
from rankd.telemetry.tracing import AppWrapper, no_tracing, open_tracing
from rankd.types import TruncationPolicy

_log = logging.getLogger("rankd")

_ABOUT = "Reranking with Qwen3-Reranker: right scores without a flag."

# Two: one long request does not hold up the tokens of the next.
_ENCODING_THREADS = 2

# All request bodies in memory together take at most this many times `max_body_bytes`.
WAITING_BODIES: float = 16


@asynccontextmanager
async def open_ranker(settings: Settings) -> AsyncIterator[tuple[Checkpoint, Ranker]]:
    """A ranker that is ready, with its engine; leaving frees the engine.

    Raises:
        SetupError: the model or the engine cannot be used; says why.
    """
    checkpoint = await in_thread(partial(locate, settings.model, settings.revision))
    report_step(StartupStep(f"loading {checkpoint.name}"))
    executor = ThreadPoolExecutor(_ENCODING_THREADS, "encode")
    try:
        encoder = open_encoder(
            checkpoint,
            max_tokens=settings.max_tokens,
            instruction=settings.instruction,
            max_instruction_tokens=MAX_INSTRUCTION_TOKENS,
            fit=TruncationPolicy(truncation=settings.truncation),
            executor=executor,
        )
        async with (
            open_engine(checkpoint, encoder.answers, settings) as engine,
            open_cache(checkpoint, engine.info, encoder.answers, settings) as cache,
            open_scheduler(engine, patience=settings.engine_wait_seconds) as scheduler,
        ):
            yield (
                checkpoint,
                Ranker(encoder, scheduler, max_documents=settings.max_documents, cache=cache),
            )
    finally:
        # Whoever leaves does not wait for the encoding of what nobody will read.
        executor.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The whole server as an ASGI app, ready to answer.

    Raises:
        SetupError: as `open_ranker`, or the self-check failed and is strict.
    """
    keys = KeyRing(settings.api_keys, settings.api_keys_file)
    _check_key_presets(settings, keys)
    async with (
        open_tracing(enabled=settings.otel, drain_seconds=settings.drain_seconds) as traced,
        open_ranker(settings) as (checkpoint, checking),
        open_rate_limiter(settings) as limits,
    ):
        await _self_check(checking, settings)
        ranker = Ranker(
            checking.encoder,
            checking.scheduler,
            max_documents=checking.max_documents,
            cache=checking.cache,
            admission=_admission(settings),
            limits=limits,
            counted=True,
        )
        name = settings.served_model_name or checkpoint.name
        aliases = frozenset({checkpoint.name, settings.model})
        await refuse_unfit_profiles(settings, checkpoint, ranker, {name, *aliases})
        service = ModelService(
            ranker,
            name,
            aliases,
            strict=settings.strict_model,
            needs_key=bool(keys),
            timeout_ms=settings.timeout_ms,
            log_texts=settings.log_texts,
            profiles=Profiles(settings),
        )
        metrics.SERVED.info(service.provenance.labels)
        app = build(service, settings, keys, traced)
        # What ranks, but for paths that hold a model's name.
        paths = (offer.path for offer in dialects.route_specs())
        endpoints = frozenset(
            path for path in paths if "{" not in path and not path.endswith("/tokenize")
        )
        async with batches.open_batches(
            settings, _inside(app, traced), endpoints, service.drain.on_begin
        ) as app.state.batches:
            yield app


async def refuse_unfit_profiles(
    settings: Settings, checkpoint: Checkpoint, ranker: Ranker, own: Collection[str]
) -> None:
    """What only the model can tell of presets, aliases and calibrations."""
    limit = MAX_INSTRUCTION_TOKENS
    for name, text in settings.instructions.items():
        tokens = len(await ranker.encoder.tokenize(text))
        if tokens > limit:
            raise BadSettings(
                f"instructions.{name} takes {tokens:,} tokens; the limit is {limit:,}"
            )
    for name in settings.aliases:
        if name in own:
            raise BadSettings(f"aliases.{name} is the model's own name; give it another")
    for name, measured in settings.calibration.items():
        if measured.model not in (None, checkpoint.name):
            raise BadSettings(
                f"calibration.{name} was measured with {measured.model!r}, and this is "
                f"{checkpoint.name!r}: calibrate again"
            )


def _check_key_presets(settings: Settings, keys: KeyRing) -> None:
    """A name that no key has is only a warning: the file may get the key later."""
    owners = keys.owners()
    for name in settings.key_presets:
        if keys.owner(name.encode()) is not None:
            raise BadSettings("key_presets holds a key; put its name in --api-keys-file there")
        if name not in owners:
            _log.warning("key_presets names %r, which no key has%s", name, nearest(name, owners))


def _admission(settings: Settings) -> Admission:
    metrics.MAX_WAITING_REQUESTS.set(settings.max_waiting_requests)
    metrics.MAX_WAITING_TOKENS.set(settings.max_waiting_tokens)
    return Admission(
        max_request_tokens=settings.max_request_tokens,
        max_waiting_requests=settings.max_waiting_requests,
        max_waiting_tokens=settings.max_waiting_tokens,
    )


def _inside(app: FastAPI, traced: AppWrapper) -> batches.AsgiClient:
    """The app behind the door, but with the prefixes that the door takes off."""
    handlers = {RankError: _render, HTTPException: _render_http}
    inside: ASGIApp = ExceptionMiddleware(app.router, handlers)
    inside = PathPrefixMiddleware(inside, prefixes=dialects.PREFIXES, note=PREFIX)
    return batches.AsgiClient(traced(inside), {"app": app})


def build(
    service: ModelService, settings: Settings, keys: KeyRing, traced: AppWrapper = no_tracing
) -> FastAPI:
    """Put the rooms together around a desk that is ready."""
    dialects.refuse_conflicts()
    app = FastAPI(
        title="rankd",
        version=__version__,
        description=_ABOUT,
        redirect_slashes=False,
        openapi_tags=[*dialects.tags(), *([batches.TAG] if settings.batch_dir else [])],
    )
    app.state.service = service
    app.state.batches = None
    app.router.routes.extend(dialects.post_routes())
    for router in (*dialects.get_routers(), health.router, health.shared, batches.router):
        app.include_router(router)
    app.router.routes.extend(ui.routes(app, service, settings))
    for route in app.routes:
        # Whoever may GET may ask by HEAD; FastAPI's routes do not know.
        if isinstance(route, APIRoute) and "GET" in route.methods:
            route.methods.add("HEAD")
    app.add_middleware(
        BodyLimitMiddleware,
        limit=settings.max_body_bytes,
        room=int(WAITING_BODIES * settings.max_body_bytes),
        seconds=settings.read_timeout_seconds,
        render=dialects.error_response,
        in_pieces=batches.streams_body,
    )
    app.add_middleware(
        ApiKeyMiddleware,
        keys=keys,
        is_open=lambda path: health.is_open(path) or (settings.ui and ui.is_open(path)),
        note=CALLER,
        render=dialects.error_response,
    )
    app.add_middleware(PathPrefixMiddleware, prefixes=dialects.PREFIXES, note=PREFIX)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=[
                *("rankd", "retry-after", "x-request-id"),
                *("x-rankd-below-threshold", "x-rankd-cached", "x-rankd-usage"),
                *("x-rankd-instruction", "x-rankd-warnings"),
                *("server-timing", "traceparent"),
            ],
        )
    app.add_middleware(
        AccessLogMiddleware,
        counts_as=dialects.metric_labels,
        enabled=settings.access_log,
        render=_bug,
        arrived=ARRIVED,
        timing_origins=settings.cors_origins,
    )
    app.add_middleware(traced)
    app.add_middleware(DrainMiddleware, stopping=lambda: service.drain.begun)
    app.add_exception_handler(RankError, _render)
    app.add_exception_handler(HTTPException, _render_http)
    _describe(app, settings)
    return app


_OPS_FAILURES = failures(OpenAIFailure, (401, 404, 500, 503))


def _describe(app: FastAPI, settings: Settings) -> None:
    """Let /openapi.json tell of the routes that FastAPI does not know.

    It is made when first asked for, and in a thread: that takes half a second, in which
    others want their answers.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            book = FastAPI(title=app.title, version=app.version, openapi_tags=app.openapi_tags)
            book.description = app.description
            for router in dialects.documented_routers():
                book.include_router(router)
            if settings.batch_dir is not None:
                book.include_router(batches.router)
            for router in (health.router, health.shared):
                book.include_router(router, responses=_OPS_FAILURES)
            app.openapi_schema = completed(
                book.openapi(), {"max_documents": settings.max_documents}
            )
        return app.openapi_schema

    async def serve(http: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(openapi))

    app.openapi = openapi  # type: ignore[method-assign]
    # Before FastAPI's own route, which would make it where everyone waits.
    app.router.routes.insert(0, Route("/openapi.json", serve, methods=["GET"]))


async def _self_check(ranker: Ranker, settings: Settings) -> None:
    # The fake engine has no opinion to check.
    if settings.self_check == "off" or ranker.engine.info.name == "fake":
        return
    report_step(StartupStep("checking known pairs"))
    complaint = self_check.failure_message(await self_check.score_known_pairs(ranker))
    if complaint is None:
        return
    if settings.self_check == "strict":
        raise SelfCheckFailed(complaint)
    _log.warning("%s", complaint)


async def _render(request: Request, error: Exception) -> Response:
    problem = error if isinstance(error, RankError) else InternalError(str(error))
    return dialects.error_response(problem, request.scope)


async def _render_http(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, or not with this method."""
    problem: RankError
    path = request.scope.get("raw_path", b"").decode("latin-1") or request.url.path
    if getattr(error, "status_code", 404) == 405:
        problem = WrongMethod(f"{request.method} is not understood at {path}")
    else:
        problem = NotFound(f"nothing is served at {path}; see /docs")
    response = dialects.error_response(problem, request.scope)
    response.headers.update(getattr(error, "headers", None) or {})
    return response


def _bug(error: Exception, scope: Scope) -> Response:
    problem = InternalError("an error inside rankd; it has been logged")
    return dialects.error_response(problem, scope)
