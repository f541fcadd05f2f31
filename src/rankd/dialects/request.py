"""Request bodies: fields that every dialect accepts, and how a body is resolved, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from rankd.config.tables import CUSTOM
from rankd.dialects.deadlines import MAX_TIMEOUT_MS
from rankd.dialects.fields import Count, DocumentList, Number, Query, texts_of
from rankd.dialects.relevant_spans import CohereRelevantSpans, with_spans
from rankd.dialects.resolved import AnswerOptions, RequestContext, ResolvedRequest
from rankd.errors import InvalidRequest
from rankd.prompts.client_prompts import (
    DOCUMENT_MARKS,
    ENDINGS,
    QUERY_MARKS,
    ClientPrompt,
    Queries,
)
from rankd.ranking.profiles import Profile
from rankd.types import BACKGROUND_PRIORITY, RankRequest, ScoreThreshold, TruncationPolicy

# Clients append one of these to their base URL, which may or may not end in `/v1` or `/v2`.
# All are served alike, but at Cohere's `documents` are always in Cohere's format.
COHERE_PATH = "/v2/rerank"
RERANK_PATHS = (
    "/v1/rerank",
    "/rerank",
    COHERE_PATH,
    "/v1/reranking",
    "/reranking",
    "/v1/reranks",
    "/reranks",
)


# Fields of any dialect that override what an alias says of long documents: from which size
# on they do not fit, and what is done with those.
_SIZE_FIELDS = ("max_tokens_per_doc", "max_doc_length")
_TRUNCATION_FIELDS = (
    *("truncation", "truncation_side", "truncate", "truncation_direction"),
    *("max_chunks_per_doc", "overlap_tokens", "truncate_prompt_tokens"),
)

# Of the field `model`, in every request.
MODEL_DESCRIPTION = "Ignored unless --strict-model is set. Default: the served model."


class Spellings(dict[str, Any]):
    """The values of one field that has several names, by name; None: not sent under it."""


@dataclass(slots=True)
class SentFields:
    """What a body holds, whatever its dialect calls it.

    Fields with several names are `Spellings`.

    Attributes:
        queries: each query with its documents; one, but for bodies with several queries.
        truncation: None in it is the server's default.
        instructions: the instruction under further names, by the path of the field.
        preset, threshold: default: the fields `preset` and `score_threshold`.
        logits: whether results hold logits; None: false.
        top_n: maximum number of results; None, 0 and -1: all.
        return_documents: whether results hold their documents.
        documents: as they were sent.
        details: whether results hold details.
        max_query_tokens, max_prompt_tokens: as in `RankRequest`.
        priority: of a request without the field `priority`; lower is sooner.
        names: further `sent_names`, where they differ between bodies of one dialect.
        spans: which relevant spans results hold; None: none.
    """

    queries: Sequence[tuple[str, tuple[str, ...]]]
    truncation: TruncationPolicy = TruncationPolicy()  # noqa: RUF009  # It is immutable.
    instructions: Mapping[str, str | None] = field(default_factory=dict)
    preset: Spellings | None = None
    threshold: Spellings | None = None
    logits: bool | Spellings | None = None
    top_n: int | Spellings | None = None
    return_documents: bool = False
    documents: Sequence[Any] = ()
    details: bool = False
    max_query_tokens: int | None = None
    max_prompt_tokens: int | None = None
    priority: int = 0
    names: Mapping[str, str] = field(default_factory=dict)
    spans: CohereRelevantSpans | None = None


class RequestBody(BaseModel):
    """Fields that rankd accepts in every dialect; a dialect's subclass adds the vendor's.

    A subclass implements `sent`; `resolve` makes of it, once, what everything else works with.

        body = json_io.validate(dialect.Request, {"query": "q", "documents": ["a"]})
        request = body.resolve(RequestContext())

    Attributes:
        sent_names: the dialect's own names for fields of `RankRequest`, by the name there.
        applies_threshold: whether answers leave out documents below a threshold.
        accepts_partial: whether answers may lack documents that were not scored in time.
    """

    sent_names: ClassVar[Mapping[str, str]] = {}
    applies_threshold: ClassVar[bool] = True
    accepts_partial: ClassVar[bool] = True

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

    def sent(self) -> SentFields:
        """The dialect's own fields; raises `InvalidRequest` if one cannot be understood."""
        raise NotImplementedError

    def resolve(self, context: RequestContext) -> ResolvedRequest:
        """Every decision of the request; nothing asks the body after this.

        Raises:
            InvalidRequest: a document has no text, two names of one field have different values,
                the preset does not exist, or a threshold for scores is outside [0, 1].
        """
        sent = self.sent()
        instructions = {
            "instruction": self.instruction,
            "instruct": self.instruct,
            "task": self.task,
            **sent.instructions,
        }
        text = agreed_text(instructions)
        preset = self.preset if sent.preset is None else agreed_text(sent.preset)
        sent_names = {**self.sent_names, **sent.names}
        if text:
            sent_names["instruction"] = next(name for name, value in instructions.items() if value)
        prompt = None
        if _may_hold_prompt(sent.queries):
            prompt = context.client_prompts.check(sent.queries, sent_names.get("query", "query"))
        if prompt is not None and not preset and context.client_prompts.takes_instruction:
            text = text or prompt.instruction
        profile = context.profiles.choose(
            text=text,
            preset=preset,
            model=self.model,
            caller=context.caller,
            user=self.user or "",
        )
        request = ResolvedRequest(
            answer=self._answer_options(sent, profile),
            ranks=self._rank_requests(sent, profile, context),
            profile=profile,
            model=self.model or context.model,
            names_preset=profile.preset == CUSTOM and text in context.profiles.presets,
            unknown_fields=unknown_fields(self),
            sent_names=sent_names,
        )
        if sent.spans is not None:
            request = with_spans(request, sent.spans)
        return request if prompt is None else _with_prompt(request, prompt, context)

    def _answer_options(self, sent: SentFields, profile: Profile) -> AnswerOptions:
        value = self.score_threshold if sent.threshold is None else agreed(sent.threshold)
        logits = bool(agreed(sent.logits) if isinstance(sent.logits, Spellings) else sent.logits)
        threshold = None
        if value is not None and self.applies_threshold:
            if not 0 <= value <= 1 and not logits:
                raise InvalidRequest(
                    f"score_threshold must be between 0 and 1, as scores are, not {value:g}",
                    param="score_threshold",
                )
            threshold = ScoreThreshold(value, on_logits=logits, configured=False)
        elif profile.threshold is not None and self.applies_threshold:
            threshold = ScoreThreshold(profile.threshold, on_logits=False, configured=True)
        top_n = agreed(sent.top_n) if isinstance(sent.top_n, Spellings) else sent.top_n
        return AnswerOptions(
            top_n=top_n if top_n and top_n > 0 else None,
            return_documents=sent.return_documents,
            documents=sent.documents if sent.return_documents else (),
            logits=logits,
            details=sent.details,
            threshold=threshold,
            threshold_ignored=value is not None and not self.applies_threshold,
        )

    def _rank_requests(
        self, sent: SentFields, profile: Profile, context: RequestContext
    ) -> tuple[RankRequest, ...]:
        policy = sent.truncation
        if profile.alias is not None:
            policy = profile.truncation_over(
                policy,
                keeps_size=self.has_field(*_SIZE_FIELDS),
                keeps_truncation=self.has_field(*_TRUNCATION_FIELDS),
            )
        return tuple(
            RankRequest(
                query=query,
                documents=documents,
                instruction=profile.instruction,
                max_document_tokens=policy.tokens,
                truncation=policy.truncation,
                max_chunks=policy.chunks,
                overlap=policy.overlap,
                side=policy.side,
                details=sent.details,
                priority=BACKGROUND_PRIORITY
                if context.background
                else sent.priority
                if self.priority is None
                else self.priority,
                deadline=context.deadline,
                partial=bool(self.partial and self.accepts_partial),
                caller=context.caller,
                user=self.user or "",
                max_query_tokens=sent.max_query_tokens,
                max_prompt_tokens=sent.max_prompt_tokens,
                cache=self.cache is not False,
                background=context.background,
            )
            for query, documents in sent.queries
        )

    def has_field(self, *fields: str) -> bool:
        """Whether the request has a value for one of these fields of its dialect."""
        own = type(self).model_fields
        return any(name in own and getattr(self, name) is not None for name in fields)


def _may_hold_prompt(queries: Queries) -> bool:
    """Whether to look closer for a prompt; of most requests, no text begins or ends like one."""
    for query, documents in queries:
        if (
            query.lstrip().startswith(QUERY_MARKS)
            or any(map(str.startswith, documents, repeat(DOCUMENT_MARKS)))
            or (documents and documents[0].rstrip("\n").endswith(ENDINGS))
        ):
            return True
    return False


def _with_prompt(
    request: ResolvedRequest, prompt: ClientPrompt, context: RequestContext
) -> ResolvedRequest:
    """A request whose client brought a prompt along."""
    if not prompt.bare:
        context.client_prompts.log(prompt, context.caller)
    pairs = zip(request.ranks, prompt.bare, strict=bool(prompt.bare))
    return replace(
        request,
        bare=tuple([replace(rank, query=bare[0], documents=bare[1]) for rank, bare in pairs]),
        prompt_warning=context.client_prompts.warning(prompt, request.profile, context.profiles),
    )


def agreed(spellings: Mapping[str, Any]) -> Any:
    """The value of a field that has several names; None: none of them was sent.

    Raises:
        InvalidRequest: they were sent with different values.
    """
    given = {name: value for name, value in spellings.items() if value is not None}
    values = list(given.values())
    for value in values:
        if value != values[0]:
            names = " and ".join(given)
            raise InvalidRequest(f"{names} have different values; send one", param=list(given)[-1])
    return values[0] if values else None


def agreed_text(spellings: Mapping[str, str | None]) -> str | None:
    """As `agreed`, for texts; an empty text counts as not sent."""
    text: str | None = agreed({name: text or None for name, text in spellings.items()})
    return text


def unknown_fields(body: BaseModel, path: str = "") -> tuple[str, ...]:
    """Paths of the fields that a body has and its model does not, sorted."""
    names = [path + name for name in body.model_extra or ()]
    for name, value in body:
        if isinstance(value, BaseModel):
            names += unknown_fields(value, f"{path}{name}.")
    return tuple(sorted(names))


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

    # Whether results hold their documents if the request does not say.
    returns_documents: ClassVar[bool] = False

    def sent(self) -> SentFields:
        return self.sent_documents()

    def sent_documents(self, rank_fields: Sequence[str] | None = None) -> SentFields:
        """These fields; `rank_fields` are those of object documents that are read."""
        sent = self.return_documents
        return SentFields(
            queries=[(self.query, texts_of(self.documents, "documents", rank_fields or ()))],
            top_n=self.top_n,
            return_documents=self.returns_documents if sent is None else sent,
            documents=self.documents,
        )


class EchoingDocumentsBody(DocumentsBody):
    """For vendors whose results hold their documents by default."""

    return_documents: bool | None = Field(
        None, description="Whether results hold their documents. Default: true."
    )

    returns_documents: ClassVar[bool] = True
