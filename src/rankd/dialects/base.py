"""What every dialect is: a way to read a request, to render verdicts and to render errors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from rankd.context import NO_ID, REQUEST_ID
from rankd.dialects.envelopes import Failure, OpenAIFailure, openai_error
from rankd.dialects.fields import is_switch
from rankd.dialects.reply import Reply
from rankd.dialects.request import RERANK_PATHS, RequestBody
from rankd.errors import RankError


class Dialect(ABC):
    """One company's whole wire.

    Attributes:
        name: in metrics, in /docs, and as the prefix that forces it (`/name`).
        about: a line for /docs.
        Request: what its body holds.
        response: what its answer holds, for /docs and the tests that hold us to it.
        failure: what its errors hold, likewise.
        claims: bodies that are meant for it wherever they arrive, by the fields they
            have; several are alternatives. See `union.py`.
        paths: this vendor's own, beside `RERANK_PATHS`; they speak it without a prefix, too.
        mounted: paths that stand under the prefix.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    Request: ClassVar[type[RequestBody]]
    response: ClassVar[Any]
    failure: ClassVar[type[Failure]] = OpenAIFailure
    matchers: ClassVar[tuple[BodyMatcher, ...]] = ()
    paths: ClassVar[tuple[str, ...]] = ()
    mounted: ClassVar[tuple[str, ...]] = RERANK_PATHS

    @property
    def prefix(self) -> str:
        return f"/{self.name}"

    def of(self, body: Mapping[str, Any]) -> Dialect:
        """The dialect of a body under this one's prefix."""
        return self

    def variants(self) -> tuple[Dialect, ...]:
        """All that `of` may return, for /docs."""
        return (self,)

    @abstractmethod
    def render(self, reply: Reply) -> Any:
        """The answer's JSON."""

    def error(self, problem: RankError) -> dict[str, Any]:
        """An error's JSON; always with `message`, `detail` and `error`, which clients of
        other vendors look for. OpenAI's, unless a vendor has its own."""
        return openai_error(problem)

    def envelope(self, problem: RankError) -> dict[str, Any]:
        """As `error`, with the id under which the log has the request."""
        request_id = REQUEST_ID.get()
        named = {} if request_id == NO_ID else {"request_id": request_id}
        return {**self.error(problem), **named}

    def headers(self, reply: Reply) -> Mapping[str, str]:
        return {}


# "any" is a value, "present" may be null, too, and so may "boolean".
Kind = Literal["any", "present", "array", "object", "boolean"]


@dataclass(frozen=True)
class BodyMatcher:
    """Fields by which a body is recognised, each with the JSON type it must have."""

    fields: frozenset[tuple[str, Kind]]

    @staticmethod
    def on(**fields: Kind) -> BodyMatcher:
        return BodyMatcher(frozenset(fields.items()))

    def covers(self, body: Mapping[str, Any]) -> bool:
        return all(name in body and _is(body[name], kind) for name, kind in self.fields)

    def hides(self, other: BodyMatcher) -> bool:
        """Whether every body that `other` covers is covered by this one, too."""
        wanted = dict(other.fields)
        return all(name in wanted and _implies(wanted[name], kind) for name, kind in self.fields)

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
    # A null is as good as absent.
    return value is not None
