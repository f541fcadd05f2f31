"""The counter: who speaks which JSON. One file, one company's whole wire.

- base.py      what a dialect is; wire.py and texts.py what all of them need of JSON
- union.py     on shared paths, whose dialect a body is in
- counter.py   from a request to an answer, whatever the dialect
- schema.py    what /openapi.json says of all this
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Union

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel

from rankd.desk import DeskDep
from rankd.dialects import (
    cohere,
    counter,
    dashscope,
    elastic,
    infinity,
    jina,
    llamacpp,
    mixedbread,
    nim,
    openai,
    pinecone,
    sglang,
    siliconflow,
    tei,
    tutorials,
    union,
    vllm,
    voyage,
    weaviate,
    wire,
    xinference,
)
from rankd.dialects.base import RERANK_PATHS, Dialect
from rankd.dialects.schema import body_of, failures
from rankd.errors import RankError, SetupError

DIALECTS: tuple[Dialect, ...] = (
    openai.dialect,
    cohere.v1,
    cohere.v2,
    jina.dialect,
    vllm.dialect,
    tei.dialect,
    voyage.dialect,
    nim.dialect,
    mixedbread.dialect,
    dashscope.native,
    dashscope.compatible,
    weaviate.dialect,
    infinity.dialect,
    xinference.dialect,
    siliconflow.dialect,
    pinecone.dialect,
    sglang.dialect,
    llamacpp.dialect,
    elastic.dialect,
    tutorials.simple,
    tutorials.plain,
)

# What vendors' clients ask for besides a ranking; at the root and under the prefix.
_BESIDES: dict[str, APIRouter] = {
    tei.dialect.name: tei.router,
    nim.dialect.name: nim.router,
    weaviate.dialect.name: weaviate.router,
    xinference.dialect.name: xinference.router,
}


_PREFIXES = tuple(dict.fromkeys(dialect.prefix for dialect in DIALECTS))


def prefixes() -> tuple[str, ...]:
    """Each dialect's own, by which it is forced."""
    return _PREFIXES


def without_prefix(path: str) -> str:
    """A path as it would be at the root."""
    first, slash, rest = path.removeprefix("/").partition("/")
    return slash + rest if f"/{first}" in _PREFIXES else path


def tags() -> list[dict[str, str]]:
    """The sections of /docs: the union, then each dialect."""
    told = {"rerank": "The paths that clients of all vendors share."}
    told |= {dialect.name: dialect.about for dialect in reversed(DIALECTS)}
    return [{"name": name, "description": about} for name, about in told.items()]


def routers() -> list[APIRouter]:
    """Every dialect's routes.

    Raises:
        SetupError: two dialects claim one path, or one body.
    """
    union.refuse_shared_bodies()
    found = [_union(), _scores(), *_forced()]
    refuse_shared_paths(found)
    return found


def refuse_shared_paths(routers: Iterable[APIRouter]) -> None:
    """Raises `SetupError` when two routes answer one path; FastAPI would let the first win."""
    claims = Counter(
        (method, route.path)
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
    )
    for (method, path), count in claims.items():
        if count > 1:
            raise SetupError(f"{count} dialects answer {method} {path}")


def spoken(scope: Mapping[str, Any]) -> Dialect:
    """The dialect to answer a request in: noted when its body was read, or told by its path."""
    noted: Dialect | None = scope.get(counter.SPOKEN)
    return noted or _spoken_at(scope.get("path", ""))


def refusal(problem: RankError, scope: Mapping[str, Any]) -> Response:
    """An error in the envelope of whoever asks."""
    dialect = spoken(scope)
    if problem.status == 401 and scope["path"] in RERANK_PATHS:
        # Nobody knows yet who asks; clients of Voyage and Weaviate stumble over an object
        # where those of all others can do with a string.
        dialect = voyage.dialect
    return counter.refusal(problem, dialect)


def _spoken_at(path: str) -> Dialect:
    for start, dialect in _starts():
        if path == start or (start.endswith("/") and path.startswith(start)):
            return dialect
    return openai.dialect


@cache
def _starts() -> list[tuple[str, Dialect]]:
    """Beginnings of paths (when they end in a slash) and whole paths, and whose they are."""
    starts = [(f"{dialect.prefix}/", dialect) for dialect in DIALECTS]
    for dialect in DIALECTS:
        starts += [(path.split("{")[0], dialect) for path in dialect.paths if path != "/"]
        if router := _BESIDES.get(dialect.name):
            starts += [
                (route.path, dialect) for route in router.routes if isinstance(route, APIRoute)
            ]
    return starts


def _union() -> APIRouter:
    """The root: shared paths, on which the body decides, and every vendor's own."""
    router = APIRouter()
    responses: dict[int | str, dict[str, Any]] = {
        200: {"model": _either([dialect.response for dialect in union.ORDER])},
        **failures(_either([dialect.failure for dialect in union.ORDER])),
    }
    for place, path in enumerate(RERANK_PATHS):
        router.add_api_route(
            path,
            counter.endpoint(union.speaker),
            methods=["POST"],
            name="rerank",
            tags=["rerank"],
            summary="Order documents by their relevance to a query",
            description=_UNION,
            response_model=None,
            responses=responses,
            openapi_extra=body_of(*(dialect.Request for dialect in union.ORDER)),
            include_in_schema=place == 0,
        )
    for dialect in DIALECTS:
        for path in dialect.paths:
            _add(router, path, dialect)
        if dialect.name in _BESIDES:
            router.include_router(
                _BESIDES[dialect.name], responses=failures(dialect.failure, (401, 500, 503))
            )
    return router


_UNION = (
    "The body decides whose dialect is spoken, in the order of docs/api.md; errors wear the "
    f"envelope of that dialect. Also at {', '.join(RERANK_PATHS[1:])}."
)


def _forced() -> list[APIRouter]:
    """Each dialect under its own prefix, whatever the body looks like."""
    found = []
    for dialect in DIALECTS:
        router = APIRouter(prefix=dialect.prefix)
        for place, path in enumerate([*dialect.mounted, *dialect.paths]):
            shown = place == 0 and bool(dialect.mounted)
            _add(router, path if path != "/" else "", dialect, shown=shown)
        if dialect.name in _BESIDES:
            router.include_router(_BESIDES[dialect.name], include_in_schema=False)
        found.append(router)
    return found


def _add(router: APIRouter, path: str, dialect: Dialect, *, shown: bool = True) -> None:
    router.add_api_route(
        path,
        counter.endpoint(dialect.of),
        methods=["POST"],
        name=dialect.name,
        tags=[dialect.name],
        summary=dialect.about,
        response_model=None,
        responses={
            200: {"model": _either(one.response for one in dialect.speakers())},
            **failures(_either(one.failure for one in dialect.speakers())),
        },
        openapi_extra=body_of(*(one.Request for one in dialect.speakers())),
        include_in_schema=shown,
    )


def _scores() -> APIRouter:
    """What is asked for besides a ranking of one query's documents."""
    router = APIRouter()
    for prefix in ("", vllm.dialect.prefix):
        _post(router, f"{prefix}/v1/score", vllm.score, vllm.ScoreRequest, vllm.ScoreResponse)
        _post(router, f"{prefix}/score", vllm.score, vllm.ScoreRequest, vllm.ScoreResponse)
        _post(
            router, f"{prefix}/tokenize", vllm.tokenize, vllm.TokenizeRequest, vllm.TokenizeResponse
        )
    _post(
        router,
        "/invocations",
        _invocations(union.speaker),
        _either([vllm.ScoreRequest, *(dialect.Request for dialect in union.ORDER)]),
        _either([vllm.ScoreResponse, *(dialect.response for dialect in union.ORDER)]),
        failure=_either([dialect.failure for dialect in union.ORDER]),
    )
    _post(
        router,
        f"{vllm.dialect.prefix}/invocations",
        _invocations(vllm.dialect.of),
        _either([vllm.ScoreRequest, vllm.RerankRequest]),
        _either([vllm.ScoreResponse, vllm.RerankResponse]),
    )
    for path in ("/simple/batch_rerank", "/simple/v1/batch_rerank"):
        _post(
            router,
            path,
            tutorials.batch_rerank,
            tutorials.BatchRequest,
            tutorials.BatchResponse,
            tag="simple",
        )
    return router


def _invocations(choose: counter.Choice) -> Callable[..., Any]:
    async def invocations(http: Request, desk: DeskDep) -> Response:
        """SageMaker's one path: a score request, or a rerank request of any dialect."""
        body = wire.fields_of(await http.body(), desk.ranker.max_documents)
        if vllm.is_score(body):
            return await vllm.score_body(body, desk)
        return await counter.answer(http, desk, choose(body), body)

    return invocations


def _post(
    router: APIRouter,
    path: str,
    route: Callable[..., Any],
    request: Any,
    response: type[BaseModel],
    *,
    tag: str = "vllm",
    failure: Any = None,
) -> None:
    prefixed = path.startswith(vllm.dialect.prefix)
    router.add_api_route(
        path,
        route,
        methods=["POST"],
        tags=[tag],
        response_model=None,
        responses={
            200: {"model": response},
            **failures(failure or (vllm.dialect if prefixed else openai.dialect).failure),
        },
        openapi_extra=body_of(request),
        include_in_schema=not prefixed and path != "/score" and path != "/simple/v1/batch_rerank",
    )


def _either(types: Iterable[Any]) -> Any:
    return Union[tuple(dict.fromkeys(types))]  # noqa: UP007  # Its members are values here.
