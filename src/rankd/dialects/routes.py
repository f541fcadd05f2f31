"""Every path that is served, by whom, and what is said of it.

At the root the body decides on shared paths, and a vendor's own paths speak its
dialect. A prefix (`/voyage/...`) forces a dialect: the door takes it off the path and
notes it, so that one set of routes serves them all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Union

from fastapi import APIRouter, Request, Response
from starlette.routing import Match, Route, compile_path
from starlette.types import Scope

from rankd.context import DIALECT, FAILURE, PREFIX
from rankd.dialects import batch_rerank, detect, handler, tutorials, vllm, voyage
from rankd.dialects.base import Dialect
from rankd.dialects.openapi import body_of, failures
from rankd.dialects.registry import BESIDES, DIALECTS
from rankd.dialects.request import RERANK_PATHS
from rankd.errors import NotFound, RankError, SetupError
from rankd.ranking.service import service_of

Endpoint = Callable[[Request], Awaitable[Response]]

# What forces a dialect.
PREFIXES = frozenset(dialect.name for dialect in DIALECTS)

# The section of /docs where the body decides, and what a dialect is called before it has.
_SHARED, _UNKNOWN = "rerank", "unknown"


@dataclass(frozen=True)
class RouteSpec:
    """What is served at a path, and what /docs says of it.

    Attributes:
        path: as a caller sees it, prefix and all.
        requests: what its body may be.
        responses: what its answer may be.
        failures: what its errors may be.
        shown: whether it stands in /docs; the others are the same by another path.
    """

    path: str
    tag: str
    summary: str
    requests: tuple[Any, ...]
    responses: tuple[Any, ...]
    failures: tuple[Any, ...]
    shown: bool = True
    about: str = ""


class _Route(Route):
    """As Starlette's, but the access log learns which one it was from every version of it."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        if match is not Match.NONE:
            found["route"] = self
        return match, found


def refuse_conflicts() -> None:
    """Raises `SetupError` when two dialects claim one path, or one body."""
    detect.refuse_ambiguous_matchers()
    refuse_shared_paths(offer.path for offer in route_specs())


def refuse_shared_paths(paths: Iterable[str]) -> None:
    """Raises `SetupError` when a path is served twice; the first would silently win."""
    for path, count in Counter(paths).items():
        if count > 1:
            raise SetupError(f"{count} dialects answer POST {path}")


def post_routes() -> list[Route]:
    """What answers POSTs, without the prefixes, which the door takes off."""
    served: dict[str, Endpoint] = {path: handler.endpoint(_on_shared) for path in RERANK_PATHS}
    for dialect in DIALECTS:
        for path in dialect.paths:
            served[path] = handler.endpoint(_on_own(dialect))
    served |= {
        "/v1/score": _only_under((None, "openai", "vllm"), vllm.score),
        "/score": _only_under((None, "openai", "vllm"), vllm.score),
        "/tokenize": _only_under((None, "openai", "vllm"), vllm.tokenize),
        "/invocations": _only_under((None, "vllm"), _invocations),
        "/batch_rerank": _batch_rerank,
        "/v1/batch_rerank": _batch_rerank,
    }
    return [_Route(path, endpoint, methods=["POST"]) for path, endpoint in served.items()]


def error_response(problem: RankError, scope: Scope) -> Response:
    """An error in the envelope of whoever asks."""
    scope.setdefault(FAILURE, problem)
    dialect = _dialect_of(scope)
    if problem.status == 401 and PREFIX not in scope and scope["path"] in RERANK_PATHS:
        # Nobody knows yet who asks; clients of Voyage and Weaviate stumble over an object
        # where those of all others can do with a string.
        dialect = voyage.dialect
    return handler.error_response(problem, dialect)


def metric_labels(scope: Scope) -> tuple[str, str] | None:
    """The dialect and the route by which a request to rank is counted; None of any other.

    Both are of a closed set, whatever a caller sends. A request that was refused before its
    body was read is of an unknown dialect where only the body could have told.
    """
    if scope["method"] != "POST" or (route := _ranking_route(scope["path"])) is None:
        return None
    if noted := scope.get(DIALECT):
        return noted.name, route
    tag = scope.get(PREFIX) or _tags_of_routes()[route]
    return _UNKNOWN if tag == _SHARED else tag, route


def _ranking_route(path: str) -> str | None:
    """The pattern of the route that ranks at a path."""
    known = _tags_of_routes()
    if path in known:
        return path
    return next((route for route, pattern in _patterns() if pattern.fullmatch(path)), None)


@cache
def _tags_of_routes() -> dict[str, str]:
    """Every route that ranks, without the prefixes, and its section of /docs."""
    tags = {offer.path: offer.tag for offer in route_specs()}
    return {route.path: tags[route.path] for route in post_routes() if route.path != "/tokenize"}


@cache
def _patterns() -> list[tuple[str, re.Pattern[str]]]:
    """Of the routes with a model's name in their path."""
    return [(path, compile_path(path)[0]) for path in _tags_of_routes() if "{" in path]


def _on_shared(scope: Scope, body: Mapping[str, Any]) -> Dialect:
    """The prefix decides, else the body."""
    forced = scope.get(PREFIX)
    if forced is None:
        return detect.dialect_of(body)
    for dialect in DIALECTS:
        if dialect.name == forced and scope["path"] in dialect.mounted:
            return dialect.of(body)
    raise NotFound(f"nothing is served at {scope['path']} under /{forced}; see /docs")


def _on_own(dialect: Dialect) -> handler.Choice:
    def choose(scope: Scope, body: Mapping[str, Any]) -> Dialect:
        if scope.get(PREFIX, dialect.name) != dialect.name:
            raise NotFound(f"{scope['path']} is no path of {scope[PREFIX]}; see /docs")
        return dialect.of(body)

    return choose


async def _invocations(http: Request) -> Response:
    """SageMaker's one path: a score request, or a rerank request of any dialect."""
    service = service_of(http)
    body = await handler.fields_in(http)
    forced = http.scope.get(PREFIX)
    if vllm.is_score(body):
        return await vllm.score_body(http, service, body)
    return await handler.answer(
        http, service, vllm.dialect if forced else detect.dialect_of(body), body
    )


async def _batch_rerank(http: Request) -> Response:
    """A tutorial's, under its prefix; else many requests in one, of any dialect each."""
    serve = (
        tutorials.batch_rerank if http.scope.get(PREFIX) == "simple" else batch_rerank.batch_rerank
    )
    return await _only_under((None, "openai", "simple"), serve)(http)


def _only_under(prefixes: Collection[str | None], endpoint: Endpoint) -> Endpoint:
    async def serve(http: Request) -> Response:
        if http.scope.get(PREFIX) not in prefixes:
            raise NotFound(f"nothing is served at {http.scope['path']} there; see /docs")
        return await endpoint(http)

    return serve


def _dialect_of(scope: Scope) -> Dialect:
    """Noted when the body was read, else told by the prefix or the path."""
    if noted := scope.get(DIALECT):
        told: Dialect = noted
        return told
    forced, path = scope.get(PREFIX), scope["path"]
    named = [dialect for dialect in DIALECTS if forced in (None, dialect.name)]
    for start, dialect in _starts():
        if dialect in named and _begins(path, start):
            return dialect
    return detect.ORDER[-1] if forced is None else named[0]


def _begins(path: str, start: str) -> bool:
    return path == start or (start != "/" and start.endswith("/") and path.startswith(start))


@cache
def _starts() -> list[tuple[str, Dialect]]:
    """Vendors' own paths, up to where a model's name begins, and whose they are."""
    starts: list[tuple[str, Dialect]] = []
    for dialect in DIALECTS:
        own = [path.split("{")[0] for path in dialect.paths]
        besides = BESIDES.get(dialect.name, APIRouter()).routes if dialect.paths else []
        own += [route.path for route in besides if isinstance(route, Route)]
        starts += [(path, dialect) for path in own or [dialect.prefix]]
    return starts


# What is said of all this.


def tags() -> list[dict[str, str]]:
    """The sections of /docs: the union, then each dialect."""
    told = {_SHARED: "The paths that clients of all vendors share."}
    told |= {dialect.name: dialect.about for dialect in reversed(DIALECTS)}
    return [{"name": name, "description": about} for name, about in told.items()]


def documented_routers() -> list[APIRouter]:
    """Routes that serve nothing, but of which FastAPI makes the document."""
    router = APIRouter()
    for offer in route_specs():
        if offer.shown:
            _document(router, offer)
    besides = APIRouter()
    for dialect in DIALECTS:
        if dialect.paths and dialect.name in BESIDES:
            besides.include_router(
                BESIDES[dialect.name], responses=failures(dialect.failure, (401, 500, 503))
            )
    return [router, besides]


def route_specs() -> list[RouteSpec]:
    """Everything that takes a POST."""
    return [*_union_offers(), *_own_offers(), *_forced_offers(), *_score_offers()]


def _union_offers() -> list[RouteSpec]:
    return [
        RouteSpec(
            path,
            _SHARED,
            "Order documents by their relevance to a query",
            tuple(dialect.Request for dialect in detect.ORDER),
            tuple(dialect.response for dialect in detect.ORDER),
            tuple(dialect.failure for dialect in detect.ORDER),
            shown=place == 0,
            about=_UNION,
        )
        for place, path in enumerate(RERANK_PATHS)
    ]


_UNION = (
    "The body decides whose dialect is spoken, in the order of docs/api.md; errors wear the "
    "envelope of that dialect. With `Accept: application/x-ndjson` each verdict is a line as "
    f"soon as it is known, the answer the last. Also at {', '.join(RERANK_PATHS[1:])}."
)


def _own_offers() -> list[RouteSpec]:
    return [_offer(dialect, path) for dialect in DIALECTS for path in dialect.paths]


def _forced_offers() -> list[RouteSpec]:
    return [
        _offer(
            dialect,
            dialect.prefix + path.removesuffix("/"),
            shown=dialect.mounted[:1] == (path,),
        )
        for dialect in DIALECTS
        for path in (*dialect.mounted, *dialect.paths)
    ]


def _offer(dialect: Dialect, path: str, *, shown: bool = True) -> RouteSpec:
    speakers = dialect.variants()
    return RouteSpec(
        path,
        dialect.name,
        dialect.about,
        tuple(one.Request for one in speakers),
        tuple(one.response for one in speakers),
        tuple(one.failure for one in speakers),
        shown=shown,
    )


def _score_offers() -> list[RouteSpec]:
    ours, theirs = detect.ORDER[-1].failure, vllm.dialect.failure
    score = ((vllm.VllmScoreRequest,), (vllm.VllmScoreResponse,))
    tokens = ((vllm.TokenizeRequest,), (vllm.TokenizeResponse,))
    parts = ((batch_rerank.BatchRerankRequest,), (batch_rerank.BatchRerankResponse,), (ours,))
    batch = ((tutorials.SimpleBatchRequest,), (tutorials.SimpleBatchResponse,))
    invoked = (
        (vllm.VllmScoreRequest, *(dialect.Request for dialect in detect.ORDER)),
        (vllm.VllmScoreResponse, *(dialect.response for dialect in detect.ORDER)),
        tuple(dialect.failure for dialect in detect.ORDER),
    )
    both = (
        (vllm.VllmScoreRequest, vllm.VllmRerankRequest),
        (vllm.VllmScoreResponse, vllm.VllmRerankResponse),
    )
    scoring = "Score texts against each other, in the order of the request"
    tokenizing = "The token ids of a text, as documents are read: without the template"
    invoking = "SageMaker's one path: a score request, or a rerank request of any dialect"
    dividing = "Many requests in one, each answered or refused by itself"
    batching = "Several questions in one request; taken together, or refused together"
    return [
        RouteSpec("/v1/score", "vllm", scoring, *score, (ours,)),
        RouteSpec("/score", "vllm", scoring, *score, (ours,), shown=False),
        RouteSpec("/vllm/v1/score", "vllm", scoring, *score, (theirs,), shown=False),
        RouteSpec("/vllm/score", "vllm", scoring, *score, (theirs,), shown=False),
        RouteSpec("/tokenize", "vllm", tokenizing, *tokens, (ours,)),
        RouteSpec("/vllm/tokenize", "vllm", tokenizing, *tokens, (theirs,), shown=False),
        RouteSpec("/invocations", "vllm", invoking, *invoked),
        RouteSpec("/vllm/invocations", "vllm", invoking, *both, (theirs,), shown=False),
        RouteSpec("/v1/batch_rerank", "openai", dividing, *parts),
        RouteSpec("/batch_rerank", "openai", dividing, *parts, shown=False),
        RouteSpec("/openai/v1/batch_rerank", "openai", dividing, *parts, shown=False),
        RouteSpec("/openai/batch_rerank", "openai", dividing, *parts, shown=False),
        RouteSpec("/simple/batch_rerank", "simple", batching, *batch, (ours,)),
        RouteSpec("/simple/v1/batch_rerank", "simple", batching, *batch, (ours,), shown=False),
    ]


def _document(router: APIRouter, offer: RouteSpec) -> None:
    def nothing() -> None:
        """Only its place in the document counts."""

    router.add_api_route(
        offer.path,
        nothing,
        methods=["POST"],
        name=offer.tag,
        tags=[offer.tag],
        summary=offer.summary,
        description=offer.about or offer.summary,
        response_model=None,
        responses={
            200: {"model": _either(offer.responses)},
            **failures(_either(offer.failures)),
        },
        openapi_extra=body_of(*offer.requests),
    )


def _either(types: Iterable[Any]) -> Any:
    return Union[tuple(dict.fromkeys(types))]  # noqa: UP007  # Its members are values here.
