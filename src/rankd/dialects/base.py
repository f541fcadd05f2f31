"""The contract of a dialect: read a request, render the answer, render errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from fastapi import APIRouter, Request, Response

from rankd.context import NO_ID, REQUEST_ID
from rankd.dialects.envelopes import Failure, OpenAIFailure, openai_error
from rankd.dialects.fields import is_switch
from rankd.dialects.reply import Reply
from rankd.dialects.request import RERANK_PATHS, RequestBody
from rankd.errors import RankError

Endpoint = Callable[[Request], Awaitable[Response]]


class Dialect(ABC):
    """The API of one vendor. `registry.py` lists one instance of each.

    Example: `dialect.render(reply)` returns the JSON of an answer to `dialect.Request`.

    Attributes:
        name: label in metrics, section of /docs, and the prefix that selects it (`/name`).
        about: one line for /docs.
        Request: model of the request body.
        response: type of the answer, for /docs and the tests.
        failure: model of the errors, for /docs and the tests.
        matchers: bodies on shared paths that are in this dialect; one must match.
        detection_rank: position among dialects with matchers; the lowest is tried first,
            and the last also takes bodies that match none.
        paths: the vendor's own paths, which use this dialect with and without a prefix.
        mounted: further paths that exist under the prefix.
        get_router: the vendor's GET routes, such as its health checks.
        prefix_router: GET routes that only exist under the prefix, such as `/models` in the
            vendor's shape.
        renders_unidentified_401: a 401 on a shared path without a prefix, where the body
            is not read, is rendered in this dialect.
        auth_scheme: scheme of `Authorization`, in lower case, that only its clients send; a 401
            on a shared path is rendered in this dialect then.
        adds_headers: whether `headers` returns any.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    Request: ClassVar[type[RequestBody]]
    response: ClassVar[Any]
    failure: ClassVar[type[Failure]] = OpenAIFailure
    matchers: ClassVar[tuple[BodyMatcher, ...]] = ()
    detection_rank: ClassVar[int] = 0
    paths: ClassVar[tuple[str, ...]] = ()
    mounted: ClassVar[tuple[str, ...]] = RERANK_PATHS
    get_router: ClassVar[APIRouter | None] = None
    prefix_router: ClassVar[APIRouter | None] = None
    renders_unidentified_401: ClassVar[bool] = False
    auth_scheme: ClassVar[bytes] = b""
    adds_headers: ClassVar[bool] = False

    @property
    def prefix(self) -> str:
        return f"/{self.name}"

    def extra_routes(self) -> tuple[ExtraRoute, ...]:
        """POST routes of the vendor that do not take `Request`."""
        return ()

    def of(self, body: Mapping[str, Any]) -> Dialect:
        """The variant of this dialect that a body is in."""
        return self

    def variants(self) -> tuple[Dialect, ...]:
        """Every dialect that `of` can return, for /docs."""
        return (self,)

    @abstractmethod
    def render(self, reply: Reply) -> Any:
        """The answer's JSON."""

    def headers(self, reply: Reply) -> Mapping[str, str]:
        """Further headers of an answer."""
        return {}

    def error(self, problem: RankError) -> dict[str, Any]:
        """An error's JSON, OpenAI's by default.

        Always has `message`, `detail` and `error`, which clients of other vendors read.
        """
        return openai_error(problem)

    def envelope(self, problem: RankError) -> dict[str, Any]:
        """As `error`, with the `request_id` that the log has too."""
        request_id = REQUEST_ID.get()
        extra = {} if request_id == NO_ID else {"request_id": request_id}
        return {**self.error(problem), **extra}


@dataclass(frozen=True)
class ExtraRoute:
    """A POST route whose body is not a dialect's `Request`, such as `/score`.

    Attributes:
        paths: without prefix; all are served alike.
        prefixes: dialects under which the paths exist; None is without a prefix.
        requests, responses: alternatives, for /docs.
        failures: models of the errors. Default: those of the prefix's dialect.
        ranks: whether it computes scores; then it counts in the metrics of reranking.
        shown: whether /docs shows the first path under the first prefix.
    """

    paths: tuple[str, ...]
    prefixes: tuple[str | None, ...]
    endpoint: Endpoint
    summary: str
    requests: tuple[Any, ...]
    responses: tuple[Any, ...]
    failures: tuple[Any, ...] = ()
    ranks: bool = True
    shown: bool = True


# "any": a value other than null. "present": may be null. "boolean": may be null, too.
Kind = Literal["any", "present", "array", "object", "boolean"]


@dataclass(frozen=True)
class BodyMatcher:
    """Fields that a body must have to match, each with the kind of its value.

    Attributes:
        names: of the fields.
    """

    fields: frozenset[tuple[str, Kind]]
    names: frozenset[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset(name for name, _ in self.fields))

    @staticmethod
    def on(**fields: Kind) -> BodyMatcher:
        return BodyMatcher(frozenset(fields.items()))

    def covers(self, body: Mapping[str, Any]) -> bool:
        """Whether a body has all the fields."""
        return self.names <= body.keys() and all(
            _is(body[name], kind) for name, kind in self.fields
        )

    def hides(self, other: BodyMatcher) -> bool:
        """Whether this one covers every body that `other` covers."""
        kinds = dict(other.fields)
        return all(name in kinds and _implies(kinds[name], kind) for name, kind in self.fields)

    def __str__(self) -> str:
        return " + ".join(
            f"{name} ({kind})" if kind in ("array", "object", "boolean") else name
            for name, kind in sorted(self.fields)
        )


def _implies(kind: Kind, other: Kind) -> bool:
    return other in (kind, "present") or (other == "any" and kind in ("array", "object"))


def _is(value: Any, kind: Kind) -> bool:
    match kind:
        case "present":
            return True
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case "boolean":
            return value is None or is_switch(value)
    return value is not None
