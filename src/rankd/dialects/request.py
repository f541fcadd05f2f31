"""Request bodies: fields that every dialect accepts, and how a body becomes a `RankRequest`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rankd.dialects.deadlines import MAX_TIMEOUT_MS
from rankd.dialects.fields import Count, DocumentList, Number, Query, echo, texts_of
from rankd.errors import InvalidRequest
from rankd.types import RankRequest, TruncationPolicy

# Clients append one of these to their base URL, which may or may not end in `/v1` or `/v2`.
# All are served alike.
RERANK_PATHS = (
    "/v1/rerank",
    "/rerank",
    "/v2/rerank",
    "/v1/reranking",
    "/reranking",
    "/v1/reranks",
    "/reranks",
)


# Of the field `model`, in every request.
MODEL_DESCRIPTION = "Ignored unless --strict-model is set. Default: the served model."


class RequestBody(BaseModel):
    """Fields that rankd accepts in every dialect; a dialect's subclass adds the vendor's.

    The methods tell what the request asks for, whatever the fields are called. A subclass
    overrides those for which it has a field.
    """

    # Unknown fields are kept, so that a warning can name them.
    model_config = ConfigDict(extra="allow", protected_namespaces=())

    model: str | None = Field(None, description=MODEL_DESCRIPTION)
    instruction: str | None = Field(
        None, description="What relevance means for this query. Default: the server's instruction."
    )
    instruct: str | None = Field(None, description="Another name of `instruction`.")
    task: str | None = Field(None, description="Another name of `instruction`.")
    preset: str | None = Field(
        None,
        description="Name of an instruction configured on the server; `instruction` overrides it. "
        "Default: the preset of the model's name or of the API key.",
    )
    score_threshold: Number | None = Field(
        None,
        allow_inf_nan=False,
        description="Leaves out documents whose score, as the answer shows it, is lower. "
        "Default: the server's threshold, if one is configured.",
    )
    priority: Count | None = Field(
        None, ge=0, le=999, description="0 to 999; lower values are scored sooner. Default: 0."
    )
    user: str | None = Field(
        None,
        description="End user, for fair scheduling between users of one key. Default: no user.",
    )
    timeout_ms: Count | None = Field(
        None,
        ge=1,
        le=MAX_TIMEOUT_MS,
        description="Milliseconds from arrival until the request fails with 504. The header "
        "`x-rankd-timeout-ms` does the same; the smaller counts. Default: the server's "
        "--timeout-ms.",
    )
    partial: bool | None = Field(
        None,
        description="true: after the timeout, answer with the documents scored so far and name "
        "the others. Default: false.",
    )
    cache: bool | None = Field(
        None,
        description="false: compute every score, and neither read nor write the cache. "
        "Default: true.",
    )

    def query_text(self) -> str:
        """The query's text."""
        raise NotImplementedError

    def document_texts(self) -> tuple[str, ...]:
        """The documents' texts, in the order of the request."""
        raise NotImplementedError

    def result_limit(self) -> int | None:
        """Maximum number of results; None and 0: all."""
        return None

    def wants_documents(self) -> bool:
        """Whether results hold their documents."""
        return False

    def echo(self, index: int, text: str) -> dict[str, Any]:
        """A document as answers repeat it: an object with `text`, other fields kept."""
        return {"text": text}

    def wants_logits(self) -> bool:
        """Whether results hold logits, in nats, instead of scores in [0, 1]."""
        return False

    def truncation_policy(self) -> TruncationPolicy:
        """What is done with documents that do not fit."""
        return TruncationPolicy()

    def details(self) -> bool:
        """Whether results hold token counts, the best chunk, and the calibrated probability."""
        return False

    def has_field(self, *fields: str) -> bool:
        """Whether the request has a value for one of these fields of its dialect."""
        own = type(self).model_fields
        return any(name in own and getattr(self, name) is not None for name in fields)

    def preset_name(self) -> str | None:
        """The preset that the request names."""
        return self.preset

    def threshold(self) -> float | None:
        """The threshold that the request sends."""
        return self.score_threshold

    def applies_threshold(self) -> bool:
        """Whether the answer leaves out documents below a threshold."""
        return True

    def min_score(self) -> float | None:
        """The threshold to apply: a score in [0, 1], or a logit if the answer holds logits.

        Raises:
            InvalidRequest: the answer holds scores and the threshold is outside [0, 1].
        """
        threshold = self.threshold() if self.applies_threshold() else None
        if threshold is not None and not 0 <= threshold <= 1 and not self.wants_logits():
            raise InvalidRequest(
                f"score_threshold must be between 0 and 1, as scores are, not {threshold:g}",
                param="score_threshold",
            )
        return threshold

    def accepts_partial(self) -> bool:
        """Whether the answer may lack documents that were not scored in time."""
        return bool(self.partial)

    def rank_request(self, deadline: float | None = None) -> RankRequest:
        """The request to rank; raises `InvalidRequest` if a document has no text."""
        return self.rank_request_for(self.query_text(), self.document_texts(), deadline)

    def rank_request_for(
        self, query: str, documents: tuple[str, ...], deadline: float | None
    ) -> RankRequest:
        """The request to rank one query and its documents; some bodies hold several queries."""
        policy = self.truncation_policy()
        return RankRequest(
            query=query,
            documents=documents,
            instruction=agreed_text(**self.instructions()),
            max_document_tokens=policy.tokens,
            truncation=policy.truncation,
            max_chunks=policy.chunks,
            overlap=policy.overlap,
            side=policy.side,
            details=self.details(),
            priority=self.priority or 0,
            deadline=deadline,
            partial=self.accepts_partial(),
            cache=self.cache is not False,
        )

    def instructions(self) -> dict[str, str | None]:
        """The instruction, under each of the fields that can hold it, by the field's path."""
        return {"instruction": self.instruction, "instruct": self.instruct, "task": self.task}

    # The dialect's own names for fields of `RankRequest`, by the name there.
    sent_names: ClassVar[Mapping[str, str]] = {}

    def sent_names_of_body(self) -> Mapping[str, str]:
        """As `sent_names`, if they differ between bodies of one dialect."""
        return self.sent_names

    def in_sent_names(self, problem: InvalidRequest) -> InvalidRequest:
        """An error about a field of `RankRequest`, as one about the field that the client sent."""
        names = dict(self.sent_names_of_body())
        if sent := [name for name, text in self.instructions().items() if text]:
            names["instruction"] = sent[0]
        if problem.param not in names:
            return problem
        name = names[problem.param]
        message = problem.message.replace(f"{problem.param}[", f"{name}[")
        return type(problem)(message, param=name)


def agreed(**spellings: Any) -> Any:
    """The value of a field that has several names; None: none of them was sent.

    Raises:
        InvalidRequest: they were sent with different values.
    """
    given = {name: value for name, value in spellings.items() if value is not None}
    values = list(given.values())
    if any(value != values[0] for value in values):
        names = " and ".join(given)
        raise InvalidRequest(f"{names} have different values; send one", param=list(given)[-1])
    return values[0] if values else None


def agreed_text(**spellings: str | None) -> str | None:
    """As `agreed`, for texts; an empty text counts as not sent."""
    text: str | None = agreed(**{name: text or None for name, text in spellings.items()})
    return text


def example(body: dict[str, Any]) -> ConfigDict:
    """A model's configuration with an example body, for /docs and the tests."""
    return ConfigDict(json_schema_extra={"example": body})


class DocumentsBody(RequestBody):
    """`query`, `documents` and `top_n`, which most vendors have from Cohere."""

    query: Query = Field(description="The query: a string, or an object with `text`.")
    documents: DocumentList = Field(
        description="The documents: strings, or objects with `text` (or other fields). One string "
        "is one document."
    )
    top_n: Count | None = Field(
        None, ge=0, description="Maximum number of results. 0 or absent: all."
    )
    return_documents: bool | None = Field(
        None, description="Whether results hold their documents. Default: false."
    )

    def query_text(self) -> str:
        return self.query

    def document_texts(self) -> tuple[str, ...]:
        return texts_of(self.documents, "documents", self.fields())

    def fields(self) -> Sequence[str]:
        """Fields of object documents that are read; empty: as `text_of` chooses."""
        return ()

    def result_limit(self) -> int | None:
        return self.top_n

    def wants_documents(self) -> bool:
        return bool(self.return_documents)

    def echo(self, index: int, text: str) -> dict[str, Any]:
        return echo(self.documents[index], text)


class EchoingDocumentsBody(DocumentsBody):
    """For vendors whose results hold their documents by default."""

    return_documents: bool | None = Field(
        None, description="Whether results hold their documents. Default: true."
    )

    def wants_documents(self) -> bool:
        return self.return_documents is not False
