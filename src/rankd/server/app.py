"""Builds the server from its settings: model, engine, ranker, routes and middleware."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from rankd import __version__, batches, dialects, ui
from rankd.config.addresses import is_reachable
from rankd.config.settings import Settings
from rankd.config.suggest import nearest
from rankd.config.tables import DEFAULT, Calibration, Platt
from rankd.config.validators import check_measured_text
from rankd.engines import open_engine
from rankd.errors import BadSettings, RankError, SelfCheckFailed
from rankd.models.calibration_tables import calibration_of
from rankd.models.checkpoint import Checkpoint, locate
from rankd.models.download import in_thread
from rankd.prompts import open_encoder
from rankd.prompts.encoder import MAX_INSTRUCTION_TOKENS
from rankd.ranking import self_check
from rankd.ranking.admission import Admission
from rankd.ranking.cache import open_cache
from rankd.ranking.client_prompt_policy import ClientPromptPolicy
from rankd.ranking.profiles import Profiles
from rankd.ranking.ranker import Ranker
from rankd.ranking.rate_limits import open_rate_limiter
from rankd.ranking.scheduler import open_scheduler
from rankd.ranking.service import ModelService
from rankd.ranking.shadow import open_shadows
from rankd.server import health
from rankd.server.error_responses import render_bug, render_error, render_http
from rankd.server.middleware import (
    AccessLogMiddleware,
    AllowedHostsMiddleware,
    ApiKeyMiddleware,
    BodyLimitMiddleware,
    ByteBudget,
    KeyRing,
    PathPrefixMiddleware,
)
from rankd.server.openapi import serve_openapi
from rankd.telemetry import metrics
from rankd.telemetry.startup import StartupStep, report_step
from rankd.telemetry.tracing import AppWrapper, no_tracing, open_tracing
from rankd.types import TruncationPolicy

_log = logging.getLogger("rankd")

_DESCRIPTION = "Reranking with Qwen3-Reranker: right scores, no flags needed."

# Response headers that pages of other origins may read.
_EXPOSED_HEADERS = (
    *("rankd", "retry-after", "x-request-id"),
    *("x-rankd-below-threshold", "x-rankd-cached", "x-rankd-usage"),
    *("x-rankd-instruction", "x-rankd-variant", "x-rankd-warnings"),
    *("server-timing", "traceparent"),
)

# What the middleware for paths knows of the API.
_PATHS: dict[str, Any] = {
    "prefixes": dialects.PREFIXES,
    "known": dialects.exact_post_paths() - {"/"},
    "corrected": dialects.corrected,
}

# Two, so that encoding a long request does not delay the next one.
_ENCODING_THREADS = 2

# All request bodies in memory and unread answers together take at most this many times
# `max_body_bytes`.
WAITING_BODIES: float = 16


@asynccontextmanager
async def open_ranker(settings: Settings) -> AsyncIterator[tuple[Checkpoint, Ranker]]:
    """Load the model and start the engine; leaving the context stops the engine.

    Raises:
        SetupError: the model or the engine cannot be used; the message says why.
    """
    checkpoint = await in_thread(partial(locate, settings.model, settings.revision))
    report_step(StartupStep(f"loading {checkpoint.name}"))
    executor = ThreadPoolExecutor(_ENCODING_THREADS, "encode")
    try:
        encoder = open_encoder(
            checkpoint,
            max_tokens=settings.max_tokens,
            instruction=settings.instruction,
            prefer_stated="instruction" not in settings.model_fields_set,
            max_instruction_tokens=MAX_INSTRUCTION_TOKENS,
            truncation_policy=TruncationPolicy(truncation=settings.truncation),
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
        # Do not wait for encoding: its results are no longer needed.
        executor.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The whole server as an ASGI app that is ready for requests.

    Raises:
        SetupError: as `open_ranker`, or the self-check failed and is strict.
    """
    keys = KeyRing(settings.api_keys, settings.api_keys_file)
    _check_key_presets(settings, keys)
    async with (
        open_tracing(enabled=settings.otel, drain_seconds=settings.drain_seconds) as traced,
        open_ranker(settings) as (checkpoint, checking),
        open_rate_limiter(settings) as limits,
        AsyncExitStack() as stack,
    ):
        for note in checking.encoder.notes:
            _log.info("%s %s", checkpoint.name, note)
        # The checkpoint's own instruction, where the operator chose none.
        own = checking.encoder.instruction or ""
        settings = settings.model_copy(update={"instruction": own})
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
        profiles = Profiles(settings, await shipped_platt(checkpoint, ranker))
        service = ModelService(
            ranker,
            name,
            aliases,
            strict=settings.strict_model,
            needs_key=bool(keys),
            timeout_ms=settings.timeout_ms,
            log_texts=settings.log_texts,
            max_response_bytes=settings.max_response_bytes,
            profiles=profiles,
            shadows=await stack.enter_async_context(open_shadows(settings, ranker, profiles)),
            client_prompts=ClientPromptPolicy(
                settings.client_prompts, takes_instruction=ranker.encoder.takes_instruction
            ),
        )
        metrics.SERVED.info(service.provenance.labels)
        app = build(service, settings, keys, traced)
        async with batches.open_batches(
            settings, _asgi_client(app, traced), _batch_endpoints(), service.drain.on_begin
        ) as app.state.batches:
            yield app


async def shipped_platt(checkpoint: Checkpoint, ranker: Ranker) -> Platt | None:
    """The Platt scaling that ships for the loaded model; None if none holds for it."""
    # The fake engine's scores mean nothing.
    if ranker.engine.info.name == "fake":
        return None
    encoder = ranker.encoder
    table = await asyncio.to_thread(
        calibration_of, checkpoint, encoder.template, encoder.instruction
    )
    return None if table is None else table.platt


async def refuse_unfit_profiles(
    settings: Settings, checkpoint: Checkpoint, ranker: Ranker, own: Collection[str]
) -> None:
    """Check presets, aliases and calibrations against the loaded model.

    Args:
        own: the model's own names, which no alias may have.

    Raises:
        BadSettings: a preset is too long, an alias or a calibration is not for this model.
    """
    limit = MAX_INSTRUCTION_TOKENS
    if settings.instructions and not ranker.encoder.takes_instruction:
        raise BadSettings(
            f"instructions: the prompt of {checkpoint.name} has no place for one; remove them"
        )
    for name, text in settings.instructions.items():
        tokens = len(await ranker.encoder.tokenize(text))
        if tokens > limit:
            raise BadSettings(
                f"instructions.{name} takes {tokens:,} tokens; the limit is {limit:,}"
            )
    for name in settings.aliases:
        if name in own:
            raise BadSettings(f"aliases.{name} is the model's own name; give it another")
    for name, calibration in settings.calibration.items():
        if calibration.model not in (None, checkpoint.name):
            raise BadSettings(
                f"calibration.{name} was measured with {calibration.model!r}, but the served "
                f"model is {checkpoint.name!r}: calibrate again"
            )
    try:
        table = settings.calibration.get(DEFAULT, Calibration())
        check_measured_text(DEFAULT, table, ranker.encoder.instruction)
    except ValueError as problem:
        raise BadSettings(f"calibration: {problem}") from None


def _check_key_presets(settings: Settings, keys: KeyRing) -> None:
    """Refuse keys where names are expected. An unknown name is a warning: its key may follow."""
    owners = keys.owners()
    for name in settings.key_presets:
        if keys.owner(name.encode()) is not None:
            raise BadSettings(
                "key_presets contains a key; use its name instead, as set in --api-keys-file"
            )
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


def _batch_endpoints() -> frozenset[str]:
    """The ranking paths that batch jobs may use: not those with a model's name in the path."""
    paths = (spec.path for spec in dialects.route_specs())
    return frozenset(path for path in paths if "{" not in path and not path.endswith("/tokenize"))


def _asgi_client(app: FastAPI, traced: AppWrapper) -> batches.AsgiClient:
    """Calls the routes in this process: with prefixes, without keys, limits and access log."""
    handlers = {RankError: render_error, HTTPException: render_http}
    routes: ASGIApp = ExceptionMiddleware(app.router, handlers)
    routes = PathPrefixMiddleware(routes, **_PATHS)
    return batches.AsgiClient(traced(routes), {"app": app})


def build(
    service: ModelService, settings: Settings, keys: KeyRing, traced: AppWrapper = no_tracing
) -> FastAPI:
    """The ASGI app, with all routes and middleware, around a service that is ready.

    Args:
        traced: wraps the app in the middleware that records spans.
    """
    dialects.refuse_conflicts()
    app = FastAPI(
        title="rankd",
        version=__version__,
        description=_DESCRIPTION,
        redirect_slashes=False,
        # Served by `ui.docs` and `serve_openapi`.
        docs_url=None,
        redoc_url=None,
        openapi_tags=[*dialects.tags(), *([batches.TAG] if settings.batch_dir else [])],
    )
    app.state.service = service
    app.state.batches = None
    app.state.home = _home(settings)
    app.state.budget = ByteBudget(int(WAITING_BODIES * settings.max_body_bytes))
    app.router.routes.extend(dialects.post_routes())
    for router in (*dialects.get_routers(), health.router, health.shared, batches.router):
        app.include_router(router)
    app.router.routes.extend([*ui.docs.routes(), *ui.page.routes(service, settings)])
    _refuse_root_path(app, settings.root_path)
    for route in app.routes:
        # RFC 9110, 9.1 requires HEAD; FastAPI's routes support GET only.
        if isinstance(route, APIRoute) and "GET" in route.methods:
            route.methods.add("HEAD")
        # Starlette's patterns end in `$`, which also matches before a newline.
        if isinstance(route, Route | Mount):
            route.path_regex = re.compile(route.path_regex.pattern.removesuffix("$") + r"\Z")
    _add_middleware(app, service, settings, keys, traced)
    app.add_exception_handler(RankError, render_error)
    app.add_exception_handler(HTTPException, render_http)
    serve_openapi(app, settings, needs_key=service.needs_key)
    return app


def _home(settings: Settings) -> str:
    """Where a browser is sent that opens `/`.

    Without a root path it is relative, because a proxy may have removed a prefix.
    """
    page = "ui" if settings.ui else "docs"
    return f"{settings.root_path}/{page}" if settings.root_path else page


def _refuse_root_path(app: FastAPI, root_path: str) -> None:
    """Raise BadSettings if it begins like a path of the API, which could then mean two things."""
    first = root_path[1:].partition("/")[0]
    paths = [*app.routes, *dialects.route_specs()]
    own = {getattr(route, "path", "")[1:].partition("/")[0] for route in paths} | {"ui"}
    if first and first in own | dialects.PREFIXES:
        raise BadSettings(f"root_path {root_path!r} begins like a path of the API: /{first}")


def _add_middleware(
    app: FastAPI, service: ModelService, settings: Settings, keys: KeyRing, traced: AppWrapper
) -> None:
    """Add the middleware, innermost first."""
    app.add_middleware(
        BodyLimitMiddleware,
        max_bytes=settings.max_body_bytes,
        budget=app.state.budget,
        seconds=settings.read_timeout_seconds,
        render=dialects.error_response,
        streamed_paths=batches.STREAMED_PATHS,
    )
    if keys:
        app.add_middleware(
            ApiKeyMiddleware,
            keys=keys,
            is_open=lambda path: (
                health.is_open(path)
                or ui.docs.is_open(path)
                or (settings.ui and ui.page.is_open(path))
            ),
            render=dialects.error_response,
        )
    app.add_middleware(
        AllowedHostsMiddleware,
        hosts=_allowed_hosts(settings, keys),
        origins=settings.cors_origins,
        render=dialects.error_response,
    )
    app.add_middleware(PathPrefixMiddleware, **_PATHS, root_path=settings.root_path)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=_EXPOSED_HEADERS,
        )
    app.add_middleware(
        AccessLogMiddleware,
        counts_as=dialects.metric_labels,
        enabled=settings.access_log,
        render=render_bug,
        timing_origins=settings.cors_origins,
    )
    app.add_middleware(traced)


def _allowed_hosts(settings: Settings, keys: KeyRing) -> frozenset[str] | None:
    """The names that `Host` may have besides the server's own; None: any."""
    if not settings.allowed_hosts:
        # Any web page can make a browser of this machine send requests to a loopback address.
        return None if keys or is_reachable(settings.host) else frozenset()
    return None if "*" in settings.allowed_hosts else frozenset(settings.allowed_hosts)


async def _self_check(ranker: Ranker, settings: Settings) -> None:
    # The fake engine's scores mean nothing.
    if settings.self_check == "off" or ranker.engine.info.name == "fake":
        return
    report_step(StartupStep("checking known pairs"))
    failure = self_check.failure_message(await self_check.score_known_pairs(ranker))
    if failure is None:
        return
    if settings.self_check == "strict":
        raise SelfCheckFailed(failure)
    _log.warning("%s", failure)
