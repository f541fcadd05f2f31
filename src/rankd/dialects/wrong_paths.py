"""What a request meant whose path is not served: the path that it meant, or a hint.

Clients join a base URL with a path of their own: `/v1/rerank/rerank`, `/my-model/v1/rerank`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from pydantic import TypeAdapter
from starlette.types import Scope

from rankd.context import PREFIX
from rankd.dialects import detect
from rankd.dialects.routes import PREFIXES, SHARED_TAG, RouteSpec, route_of, route_specs
from rankd.errors import InvalidRequest, NotFound, RankError, WrongMethod

# Longer paths are not corrected.
_MAX_LENGTH = 256

# One segment of a path that may be dropped; neither `.` nor `..`.
_DROPPABLE = re.compile(r"(?!\.+$)[\w.~:@+-]+", re.ASCII)

# Paths below these segments belong to other resources, which may be named like a rerank path.
_OTHER_RESOURCES = frozenset({"ui", "files", "batches"})

# Base URLs without a path behind them, as some clients POST to what they are given.
_BASE_URLS = ("/", "/v1", "/v2")
_RERANK = "/v1/rerank"

# Last segments of paths for which other servers need another kind of model.
_OTHER_TASKS = {
    **dict.fromkeys(("embeddings", "embedding", "embed", "embed_all"), "embeddings"),
    "embed_sparse": "embeddings",
    "pooling": "pooling",
    **dict.fromkeys(("classify", "predict"), "classification"),
    **dict.fromkeys(("completions", "completion", "responses", "messages"), "text generation"),
    **dict.fromkeys(("chat", "generate"), "text generation"),
}
_RANKS = re.compile(r"rank|score", re.IGNORECASE)

# Characters of a path that an error repeats.
_SHOWN = 200


def corrected(path: str, prefix: str | None) -> tuple[str | None, str] | None:
    """The prefix and the path that a POST meant; None: nothing, or more than one thing.

    A path means what it ends in, whatever a base URL puts before it: `/rerank/v1/rerank` and
    `/model/proxy/27/v1/rerank` mean `/v1/rerank`. A dialect's name before it selects the
    dialect. It never leads to a path that computes no scores.

    Args:
        path: normalized, without the prefix; not one of `exact_post_paths`, or `/`.
    """
    if len(path) > _MAX_LENGTH or not path.isascii() or _is_served(prefix, path):
        return None
    lower = path.lower()
    if lower in _BASE_URLS:
        return (prefix, _RERANK) if (prefix, _RERANK) in _targets() else None
    segments = lower[1:].split("/")
    for start in range(len(segments)):
        tail = "/" + "/".join(segments[start:])
        if (None, tail) in _targets():
            return _behind(segments[:start], tail, prefix)
    return None


def _is_served(prefix: str | None, path: str) -> bool:
    return (route := route_of(path)) is not None and (prefix, route) in _specs()


def _behind(dropped: list[str], tail: str, prefix: str | None) -> tuple[str | None, str] | None:
    """`tail` under the dialect that the dropped segments name; None: they say something else."""
    named = PREFIXES.intersection(dropped) | ({prefix} if prefix else set())
    if len(named) > 1 or not _OTHER_RESOURCES.isdisjoint(dropped):
        return None
    if not all(map(_DROPPABLE.fullmatch, dropped)):
        return None
    name = next(iter(named), None)
    return (name, tail) if (name, tail) in _targets() else None


@cache
def _specs() -> dict[tuple[str | None, str], RouteSpec]:
    """The table of routes, by prefix and route."""
    return {(spec.prefix, spec.route): spec for spec in route_specs()}


@cache
def _targets() -> frozenset[tuple[str | None, str]]:
    """What a path may be corrected to."""
    return frozenset(
        (prefix, route)
        for (prefix, route), spec in _specs().items()
        if spec.ranks and "{" not in route and route != "/"
    )


# Errors.


def no_such_path(scope: Scope) -> RankError:
    """The error for a path that nothing is served at, with the path that was probably meant."""
    path, prefix = scope["path"], _prefix_of(scope)
    spec = _first_under(prefix)
    target = spec.path.replace(":path", "")
    if scope["method"] == "POST" and (task := _OTHER_TASKS.get(path.rsplit("/", 1)[-1].lower())):
        return InvalidRequest(
            f"this server is a reranker and has no {task}: POST {body_shape(spec)} to {target}"
        )
    shown = _shown(scope)
    if _RANKS.search(path[:_MAX_LENGTH]) or (prefix and scope["method"] == "POST"):
        return NotFound(f"nothing is served at {shown}; did you mean POST {target}? See /docs")
    return NotFound(f"nothing is served at {shown}; see /docs")


def wrong_method(scope: Scope) -> RankError:
    """The error for a method that a path does not have, with the body that a POST takes."""
    said = f"{scope['method']} is not supported at {_shown(scope)}"
    path = scope["path"]
    spec = _specs().get((scope.get(PREFIX), route_of(path) or path))
    return WrongMethod(said if spec is None else f"{said}: POST a JSON body: {body_shape(spec)}")


def _prefix_of(scope: Scope) -> str | None:
    """The dialect that the prefix or another segment names, for the format of the error."""
    if scope.get(PREFIX) is None:
        named = PREFIXES.intersection(scope["path"][:_MAX_LENGTH].lower().split("/"))
        if len(named) == 1:
            scope[PREFIX] = next(iter(named))
    prefix: str | None = scope.get(PREFIX)
    return prefix


def _first_under(prefix: str | None) -> RouteSpec:
    """The route that /docs shows first under a prefix."""
    return next(spec for spec in _specs().values() if spec.prefix == prefix)


def _shown(scope: Scope) -> str:
    """The path as the client sent it, still escaped, shortened."""
    path = scope.get("raw_path", b"").decode("latin-1") or scope["path"]
    return path if len(path) <= _SHOWN else f"{path[:_SHOWN]}..."


def body_shape(spec: RouteSpec) -> str:
    """The required fields of a route's body: `{"query": …, "documents": […]}`."""
    request = detect.FALLBACK.Request if spec.tag == SHARED_TAG else spec.requests[0]
    schema = TypeAdapter(request).json_schema()
    example = schema.get("example", {})
    names = schema.get("required", example)
    fields = ", ".join(f'"{name}": {_ellipsis(example.get(name))}' for name in names)
    return f"{{{fields}}}"


def _ellipsis(value: Any) -> str:
    if isinstance(value, list):
        return "[…]"
    return "{…}" if isinstance(value, dict) else "…"
