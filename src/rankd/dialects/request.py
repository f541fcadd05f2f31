"""Request bodies: what rankd accepts in every dialect, and how a body becomes a `RankRequest`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rankd.dialects.deadlines import LONGEST_MS
from rankd.dialects.fields import Count, DocumentList, Number, Query, echo, texts_of
from rankd.errors import InvalidRequest
from rankd.types import RankRequest, TruncationPolicy

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


class RequestBody(BaseModel):
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

    def query_text(self) -> str:
        raise NotImplementedError

    def document_texts(self) -> tuple[str, ...]:
        """The documents' texts, in the order of the request."""
        raise NotImplementedError

    def result_limit(self) -> int | None:
        """How many results are wanted; None and 0 are all."""
        return None

    def wants_documents(self) -> bool:
        """Whether results repeat their documents."""
        return False

    def echo(self, index: int, text: str) -> dict[str, Any]:
        """A document as answers repeat it: an object with `text`, other fields kept."""
        return {"text": text}

    def wants_logits(self) -> bool:
        return False

    def truncation_policy(self) -> TruncationPolicy:
        """What happens to documents that do not fit."""
        return TruncationPolicy()

    def details(self) -> bool:
        """Whether results say what was read of their documents, and how probable they are."""
        return False

    def has_field(self, *fields: str) -> bool:
        """Whether the request has any of these fields; what its dialect does not know is none."""
        known = type(self).model_fields
        return any(name in known and getattr(self, name) is not None for name in fields)

    def preset_name(self) -> str | None:
        """The preset that the request chooses."""
        return self.preset

    def threshold(self) -> float | None:
        """The `score_threshold` that it sends."""
        return self.score_threshold

    def applies_threshold(self) -> bool:
        """Whether documents may be missing whose score is below a threshold."""
        return True

    def min_score(self) -> float | None:
        """The least number that the request wants to see, on the scale that the answer has.

        Raises:
            InvalidRequest: no score can be so low, or so high.
        """
        least = self.threshold() if self.applies_threshold() else None
        if least is not None and not 0 <= least <= 1 and not self.wants_logits():
            raise InvalidRequest(
                f"score_threshold must be between 0 and 1, as scores are, not {least:g}",
                param="score_threshold",
            )
        return least

    def accepts_partial(self) -> bool:
        """Whether documents that were not scored in time may be missing from the answer."""
        return bool(self.partial)

    def rank_request(self, deadline: float | None = None) -> RankRequest:
        return self.rank_request_for(self.query_text(), self.document_texts(), deadline)

    def rank_request_for(
        self, query: str, documents: tuple[str, ...], deadline: float | None
    ) -> RankRequest:
        """What a request says of one query and its documents; some requests have several."""
        fit = self.truncation_policy()
        return RankRequest(
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
            partial=self.accepts_partial(),
            cache=self.cache is not False,
        )

    def instructions(self) -> dict[str, str | None]:
        """The instruction in every spelling, by its path."""
        return {"instruction": self.instruction, "instruct": self.instruct, "task": self.task}

    # What a dialect calls the fields of an ask that have another name in it, by that of `Ask`.
    sent_names: ClassVar[Mapping[str, str]] = {}

    def sent_names_of_body(self) -> Mapping[str, str]:
        return self.sent_names

    def in_sent_names(self, problem: InvalidRequest) -> InvalidRequest:
        """A complaint about a field of the ask, about the field that the caller sent."""
        names = dict(self.sent_names_of_body())
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


def example(body: dict[str, Any]) -> ConfigDict:
    """A request's configuration: the body that /docs shows, and that tests send."""
    return ConfigDict(json_schema_extra={"example": body})


class DocumentsBody(RequestBody):
    """`query`, `documents`, `top_n`: what most vendors took over from Cohere."""

    query: Query = Field(description="The question; a string, or an object with `text`.")
    documents: DocumentList = Field(
        description="What to judge: strings, or objects with `text` (or other fields); a string "
        "by itself is one document."
    )
    top_n: Count | None = Field(
        None, ge=0, description="Results to return; all when absent, 0 or above their number."
    )
    return_documents: bool | None = Field(
        None, description="Whether results repeat their documents; false when absent."
    )

    def query_text(self) -> str:
        return self.query

    def document_texts(self) -> tuple[str, ...]:
        return texts_of(self.documents, "documents", self.fields())

    def fields(self) -> Sequence[str]:
        """Of object documents, the fields to read; none reads what `text_of` says."""
        return ()

    def result_limit(self) -> int | None:
        return self.top_n

    def wants_documents(self) -> bool:
        return bool(self.return_documents)

    def echo(self, index: int, text: str) -> dict[str, Any]:
        return echo(self.documents[index], text)


class EchoingDocumentsBody(DocumentsBody):
    """Of a vendor that repeats documents unless it is told not to."""

    return_documents: bool | None = Field(
        None, description="Whether results repeat their documents; true when absent."
    )

    def wants_documents(self) -> bool:
        return self.return_documents is not False
