"""The front door: settings in, ASGI app out. The only place where rooms meet."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from rankd import __version__, dialects, ops, selfcheck
from rankd.checkpoint import Checkpoint, locate
from rankd.desk import Desk
from rankd.dialects.wire import error_response
from rankd.door import AccessLog, WholeBody
from rankd.engines import open_engine
from rankd.errors import InternalError, NotFound, RankError, SelfCheckFailed, WrongMethod
from rankd.prompts import open_encoder
from rankd.ranker import Ranker
from rankd.settings import Settings

_log = logging.getLogger("rankd")

_ABOUT = "Reranking with Qwen3-Reranker: right scores without a flag."

# Two: one long request does not hold up the tokens of the next.
_ENCODING_THREADS = 2


@asynccontextmanager
async def open_ranker(settings: Settings) -> AsyncIterator[tuple[Checkpoint, Ranker]]:
    """A ranker that is ready, with its engine; leaving frees the engine.

    Raises:
        SetupError: the model or the engine cannot be used; says why.
    """
    checkpoint = await asyncio.to_thread(locate, settings.model, settings.revision)
    _log.info("loading %s", checkpoint.name)
    executor = ThreadPoolExecutor(_ENCODING_THREADS, "encode")
    try:
        encoder = open_encoder(
            checkpoint,
            max_tokens=settings.max_tokens,
            instruction=settings.instruction,
            max_instruction_tokens=settings.max_instruction_tokens,
            executor=executor,
        )
        async with open_engine(checkpoint, encoder.answers, settings) as engine:
            yield checkpoint, Ranker(encoder, engine, max_documents=settings.max_documents)
    finally:
        # Whoever leaves does not wait for the encoding of what nobody will read.
        executor.shutdown(wait=False, cancel_futures=True)


@asynccontextmanager
async def open_app(settings: Settings) -> AsyncIterator[FastAPI]:
    """The whole server as an ASGI app, ready to answer.

    Raises:
        SetupError: as `open_ranker`, or the self-check failed and is strict.
    """
    async with open_ranker(settings) as (checkpoint, ranker):
        await _self_check(ranker, settings)
        name = settings.served_model_name or checkpoint.name
        aliases = frozenset({checkpoint.name, settings.model})
        yield build(Desk(ranker, name, aliases), settings)


def build(desk: Desk, settings: Settings) -> FastAPI:
    """Put the rooms together around a desk that is ready."""
    app = FastAPI(title="rankd", version=__version__, description=_ABOUT, redirect_slashes=False)
    app.state.desk = desk
    app.include_router(ops.router)
    for router in dialects.routers():
        app.include_router(router)
    app.add_middleware(WholeBody, limit=settings.max_body_bytes, render=error_response)
    app.add_middleware(AccessLog, enabled=settings.access_log, render=_bug)
    app.add_exception_handler(RankError, _render)
    app.add_exception_handler(HTTPException, _render_http)
    return app


async def _self_check(ranker: Ranker, settings: Settings) -> None:
    # The fake engine has no opinion to check.
    if settings.self_check == "off" or ranker.engine.info.name == "fake":
        return
    complaint = selfcheck.complaint(await selfcheck.judge(ranker))
    if complaint is None:
        return
    if settings.self_check == "strict":
        raise SelfCheckFailed(complaint)
    _log.warning("%s", complaint)


async def _render(request: Request, error: Exception) -> Response:
    return error_response(error if isinstance(error, RankError) else InternalError(str(error)))


async def _render_http(request: Request, error: Exception) -> Response:
    """Starlette's own refusals: no such path, or not with this method."""
    if getattr(error, "status_code", 404) == 405:
        response = error_response(
            WrongMethod(f"{request.method} is not understood at {request.url.path}")
        )
        response.headers.update(getattr(error, "headers", None) or {})
        return response
    return error_response(NotFound(f"nothing is served at {request.url.path}; see /docs"))


def _bug(error: Exception) -> Response:
    return error_response(InternalError("an error inside rankd; it has been logged"))
