"""What every dialect is: a way to read a request, to render verdicts and to render errors."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from rankd.dialects import wire
from rankd.dialects.deadlines import LONGEST_MS
from rankd.dialects.texts import Count, Number, OneOrMore, Query, echo, is_switch, texts_of
from rankd.errors import InvalidRequest, RankError
from rankd.profiles import Profile
from rankd.types import NO_ID, REQUEST_ID, Ask, Fit, Ranking, Verdict, best_first

# Where clients ask for a ranking whatever their base URL holds: they drop and add
# `/v1` and `/v2` as they like, so all of these mean the same.
RERANK_PATHS = (
    "/v1/rerank",
    "/rerank",
    "/v2/rerank",
    "/v1/reranking",
    "/reranking",
    "/v1/reranks",
    "/reranks",
)


class Asking(BaseModel):
    """What rankd takes in every dialect, beside the vendor's own fields."""

    # Unknown fields are kept, so that the answer can name them.
    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model: str | None = Field(
        None,
        description="Any name is answered by the served model, unless --strict-model; that model "
        "when absent.",
    )
    instruction: str | None = Field(
        None, description="What relevance means for this request; the server's when absent."
    )
    instruct: str | None = Field(None, description="Another name of `instruction`.")
    task: str | None = Field(None, description="Another name of `instruction`.")
    preset: str | None = Field(
        None,
        description="The name of an instruction that the server holds; that of the model's name "
        "or of the key when absent. An `instruction` beside it counts.",
    )
    score_threshold: Number | None = Field(
        None,
        allow_inf_nan=False,
        description="Documents whose score, as the answer shows it, is below are left out; the "
        "server's threshold, which is mostly none, when absent.",
    )
    priority: Count | None = Field(
        None, ge=0, le=999, description="Lower is sooner; 0 when absent."
    )
    user: str | None = Field(
        None, description="Whom it is for: users share the engine fairly; nobody when absent."
    )
    timeout_ms: Count | None = Field(
        None,
        ge=1,
        le=LONGEST_MS,
        description="Milliseconds from the request's arrival for which its answer is awaited, "
        "then it is a 504; the server's --timeout-ms when absent. A header `x-rankd-timeout-ms` "
        "says the same; the smaller counts.",
    )
    partial: bool | None = Field(
        None,
        description="true: when the time is over the answer holds the documents that are scored, "
        "and says which are not; false when absent.",
    )
    cache: bool | None = Field(
        None,
        description="false: compute every score, take and leave none in the cache; true when "
        "absent.",
    )

    # What a dialect's own fields say; each overrides what it has a field for.

    def question(self) -> str:
        raise NotImplementedError

    def texts(self) -> tuple[str, ...]:
        """The documents' texts, in the order of the request."""
        raise NotImplementedError

    def most(self) -> int | None:
        """How many results are wanted; None and 0 are all."""
        return None

    def echoes(self) -> bool:
        """Whether results repeat their documents."""
        return False

    def echo(self, index: int, text: str) -> dict[str, Any]:
        """A document as answers repeat it: an object with `text`, other fields kept."""
        return {"text": text}

    def wants_logits(self) -> bool:
        return False

    def fit(self) -> Fit:
        """What happens to documents that do not fit."""
        return Fit()

    def details(self) -> bool:
        """Whether results say what was read of their documents, and how probable they are."""
        return False

    def says(self, *fields: str) -> bool:
        """Whether the request has any of these fields; what its dialect does not know is none."""
        known = type(self).model_fields
        return any(name in known and getattr(self, name) is not None for name in fields)

    def named(self) -> str | None:
        """The preset that the request chooses."""
        return self.preset

    def threshold(self) -> float | None:
        """The `score_threshold` that it sends."""
        return self.score_threshold

    def leaves_out(self) -> bool:
        """Whether documents may be missing whose score is below a threshold."""
        return True

    def least(self) -> float | None:
        """The least number that the request wants to see, on the scale that the answer has.

        Raises:
            InvalidRequest: no score can be so low, or so high.
        """
        least = self.threshold() if self.leaves_out() else None
        if least is not None and not 0 <= least <= 1 and not self.wants_logits():
            raise InvalidRequest(
                f"score_threshold must be between 0 and 1, as scores are, not {least:g}",
                param="score_threshold",
            )
        return least

    def takes_part(self) -> bool:
        """Whether documents that were not scored in time may be missing from the answer."""
        return bool(self.partial)

    def ask(self, deadline: float | None = None) -> Ask:
        return self.ask_about(self.question(), self.texts(), deadline)

    def ask_about(self, query: str, documents: tuple[str, ...], deadline: float | None) -> Ask:
        """What a request says of one query and its documents; some requests have several."""
        fit = self.fit()
        return Ask(
            query=query,
            documents=documents,
            instruction=agreed_text(**self.instructions()),
            max_document_tokens=fit.tokens,
            truncation=fit.truncation,
            max_chunks=fit.chunks,
            overlap=fit.overlap,
            side=fit.side,
            details=self.details(),
            priority=self.priority or 0,
            deadline=deadline,
            partial=self.takes_part(),
            cache=self.cache is not False,
        )

    def instructions(self) -> dict[str, str | None]:
        """The instruction in every spelling, by its path."""
        return {"instruction": self.instruction, "instruct": self.instruct, "task": self.task}

    # What a dialect calls the fields of an ask that have another name in it, by that of `Ask`.
    spelled: ClassVar[Mapping[str, str]] = {}

    def spellings(self) -> Mapping[str, str]:
        return self.spelled

    def retold(self, problem: InvalidRequest) -> InvalidRequest:
        """A complaint about a field of the ask, about the field that the caller sent."""
        names = dict(self.spellings())
        if told := [name for name, text in self.instructions().items() if text]:
            names["instruction"] = told[0]
        if problem.param not in names:
            return problem
        name = names[problem.param]
        message = problem.message.replace(f"{problem.param}[", f"{name}[")
        return type(problem)(message, param=name)


def agreed(**spellings: Any) -> Any:
    """The one value that several spellings of a field have.

    Raises:
        InvalidRequest: they differ; one of them would be ignored, silently.
    """
    given = {name: value for name, value in spellings.items() if value is not None}
    values = list(given.values())
    if any(value != values[0] for value in values):
        names = " and ".join(given)
        raise InvalidRequest(f"{names} say different things; send one", param=list(given)[-1])
    return values[0] if values else None


def agreed_text(**spellings: str | None) -> str | None:
    """As `agreed`, of texts, of which an empty one says nothing."""
    text: str | None = agreed(**{name: text or None for name, text in spellings.items()})
    return text


def threshold_of(request: Asking, profile: Profile) -> float | None:
    """What documents are compared with; None where nothing is left out."""
    if not request.leaves_out():
        return None
    least = request.least()
    return profile.threshold if least is None else least


def let_through(
    verdicts: Sequence[Verdict], request: Asking, profile: Profile
) -> Sequence[Verdict]:
    """Those that are not below the request's threshold, or else the configured one.

    Compared is what the wire shows: a caller may send a number back that it has seen. What
    is configured is meant for the score, whatever the answer shows.
    """
    least, logits = request.least(), request.wants_logits()
    if least is None:
        least, logits = profile.threshold, False
    if least is None or not request.leaves_out():
        return verdicts
    return [one for one in verdicts if wire.rounded(one.logit if logits else one.score) >= least]


def details(verdict: Verdict, profile: Profile) -> dict[str, Any]:
    """What was read of a document, which part of it counts, and how probable it is."""
    start, end = verdict.span or (0, 0)
    chunk = {"index": verdict.piece, "of": verdict.pieces, "start": start, "end": end}
    said = {"tokens": verdict.tokens, "truncated": verdict.truncated, "chunk": chunk}
    if (probability := profile.normalized(verdict)) is not None:
        said["normalized_score"] = wire.rounded(probability)
    return said


def example(body: dict[str, Any]) -> ConfigDict:
    """A request's configuration: the body that /docs shows, and that tests send."""
    return ConfigDict(json_schema_extra={"example": body})


class Listing(Asking):
    """`query`, `documents`, `top_n`: what most vendors took over from Cohere."""

    query: Query = Field(description="The question; a string, or an object with `text`.")
    documents: OneOrMore = Field(
        description="What to judge: strings, or objects with `text` (or other fields); a string "
        "by itself is one document."
    )
    top_n: Count | None = Field(
        None, ge=0, description="Results to return; all when absent, 0 or above their number."
    )
    return_documents: bool | None = Field(
        None, description="Whether results repeat their documents; false when absent."
    )

    def question(self) -> str:
        return self.query

    def texts(self) -> tuple[str, ...]:
        return texts_of(self.documents, "documents", self.fields())

    def fields(self) -> Sequence[str]:
        """Of object documents, the fields to read; none reads what `text_of` says."""
        return ()

    def most(self) -> int | None:
        return self.top_n

    def echoes(self) -> bool:
        return bool(self.return_documents)

    def echo(self, index: int, text: str) -> dict[str, Any]:
        return echo(self.documents[index], text)


class Repeating(Listing):
    """Of a vendor that repeats documents unless it is told not to."""

    return_documents: bool | None = Field(
        None, description="Whether results repeat their documents; true when absent."
    )

    def echoes(self) -> bool:
        return self.return_documents is not False


_NO_PROFILE = Profile()


@dataclass(frozen=True)
class Reply:
    """What a dialect has to render an answer from.

    Attributes:
        texts: of the documents, in the order of the request.
        verdicts: one for each of them, in the same order; without those not scored in time.
        not_scored: documents for which the time did not suffice, by index; only when that
            was allowed.
        model: as the client named it, or the served name.
        warnings: what the caller should know: unknown fields, documents that were cut.
        device: where it was computed.
        profile: by what it was judged.
        provenance: headers that say what it was computed by.
    """

    request: Asking
    path: str
    model: str
    texts: Sequence[str]
    ranking: Ranking
    not_scored: Sequence[int]
    warnings: Sequence[str]
    device: str = ""
    profile: Profile = _NO_PROFILE
    provenance: Mapping[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def verdicts(self) -> list[Verdict]:
        return self.ranking.groups[0]

    @cached_property
    def best(self) -> list[Verdict]:
        """As many as wanted of those that a threshold lets through, most relevant first."""
        return best_first(self._through)[: self.request.most() or None]

    @cached_property
    def _through(self) -> Sequence[Verdict]:
        return let_through(self.verdicts, self.request, self.profile)

    @property
    def threshold(self) -> float | None:
        """What was compared with; None where nothing was."""
        return threshold_of(self.request, self.profile)

    @property
    def left_out(self) -> int | None:
        """Documents below the threshold; None where there is none."""
        return None if self.threshold is None else len(self.verdicts) - len(self._through)

    @cached_property
    def tokens(self) -> int:
        """Tokens of every pair, template included."""
        return sum(verdict.tokens for verdict in self.verdicts)

    @property
    def search_units(self) -> int:
        """Cohere's unit; see `billing.py`."""
        return sum(self.ranking.search_units)

    def number(self, verdict: Verdict) -> float:
        """The score as it goes on the wire, in [0, 1], or the logit when asked for."""
        return wire.rounded(verdict.logit if self._logits else verdict.score)

    @cached_property
    def _logits(self) -> bool:
        return self.request.wants_logits()

    def text(self, verdict: Verdict) -> str:
        return self.texts[verdict.index]

    def document(self, verdict: Verdict) -> dict[str, Any]:
        """The document as an object with `text`, other fields kept."""
        return self.request.echo(verdict.index, self.text(verdict))


class ErrorObject(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class Failure(BaseModel):
    """What every dialect's errors hold."""

    request_id: str = Field(
        "", description="As the header X-Request-Id; absent where what came was no request yet."
    )


class OpenAIFailure(Failure):
    """OpenAI's envelope, and the fields in which other SDKs look for a reason."""

    error: ErrorObject
    message: str
    detail: str


class StringFailure(Failure):
    """For clients that read `error` as a string."""

    error: str
    error_type: str
    message: str
    detail: str


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
    Request: ClassVar[type[Asking]]
    response: ClassVar[Any]
    failure: ClassVar[type[Failure]] = OpenAIFailure
    claims: ClassVar[tuple[Claim, ...]] = ()
    paths: ClassVar[tuple[str, ...]] = ()
    mounted: ClassVar[tuple[str, ...]] = RERANK_PATHS

    @property
    def prefix(self) -> str:
        return f"/{self.name}"

    def of(self, body: Mapping[str, Any]) -> Dialect:
        """The dialect of a body under this one's prefix."""
        return self

    def speakers(self) -> tuple[Dialect, ...]:
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
class Claim:
    """Fields by which a body is recognised, each with the JSON type it must have."""

    fields: frozenset[tuple[str, Kind]]

    @staticmethod
    def on(**fields: Kind) -> Claim:
        return Claim(frozenset(fields.items()))

    def covers(self, body: Mapping[str, Any]) -> bool:
        return all(name in body and _is(body[name], kind) for name, kind in self.fields)

    def hides(self, other: Claim) -> bool:
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


def openai_error(problem: RankError) -> dict[str, Any]:
    """OpenAI's envelope, with the fields beside it that other SDKs read a reason from."""
    return {
        "error": {
            "message": problem.message,
            "type": problem.kind,
            "param": problem.param,
            "code": problem.code,
        },
        "message": problem.message,
        "detail": problem.message,
    }


def string_error(problem: RankError, error_type: str) -> dict[str, Any]:
    """The envelope of those whose clients read `error` as a string."""
    return {
        "error": problem.message,
        "error_type": error_type,
        "message": problem.message,
        "detail": problem.message,
    }


class Document(BaseModel):
    model_config = ConfigDict(extra="allow")

    text: str


class Result(BaseModel):
    index: int = Field(description="Place of the document in the request, from 0.")
    relevance_score: float = Field(description="In [0, 1], or a logit when asked for.")
    document: Document | None = Field(None, description="Absent when not wanted.")


class Usage(BaseModel):
    prompt_tokens: int = Field(description="Tokens of every pair, template included.")
    total_tokens: int


def usage(reply: Reply) -> dict[str, int]:
    return {"prompt_tokens": reply.tokens, "total_tokens": reply.tokens}


def results(reply: Reply) -> list[dict[str, Any]]:
    """Best first; `document` is an object or absent, never null."""
    found = []
    echoes = reply.request.echoes()
    for verdict in reply.best:
        result: dict[str, Any] = {
            "index": verdict.index,
            "relevance_score": reply.number(verdict),
        }
        if echoes:
            result["document"] = reply.document(verdict)
        found.append(result)
    return found
