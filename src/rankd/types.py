"""The values that cross packages: requests, prompts, scored documents."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, NamedTuple

# What to do with a document that does not fit: read a part of it, refuse the request, or read all
# of it in chunks.
Truncation = Literal["cut", "refuse", "chunk"]

# The end that is cut off.
Side = Literal["right", "left"]

# Priority of batch jobs: behind every priority that a request can have (0 to 999).
BACKGROUND_PRIORITY = 1000


@dataclass(frozen=True, slots=True)
class SpanOptions:
    """Which sentences of documents are returned as relevant spans.

    Attributes:
        min_score: minimum score of a sentence as answers show it, in [0, 1].
        max_spans: maximum sentences per document, most relevant first. None: no maximum.
        top_n: how many documents get spans, best first. None: all.
        threshold: documents below it get none. None: no threshold.
    """

    min_score: float = 0.1
    max_spans: int | None = None
    top_n: int | None = None
    threshold: ScoreThreshold | None = None


@dataclass(frozen=True, slots=True)
class RankRequest:
    """One query and the documents to score, from any dialect.

    Attributes:
        documents: N >= 1, in the order of the request; results refer to them by index.
        instruction: what relevance means. None: the server's instruction.
        max_document_tokens: with `truncation`, `side`, `max_chunks` and `overlap`, the fields of a
            `TruncationPolicy`. None: the server's policy.
        details: also return where in each document its best chunk is.
        priority: lower is sooner; 0 to 999, and `BACKGROUND_PRIORITY`.
        deadline: `time.monotonic()` at which the request fails. None: no deadline.
        partial: at the deadline, return the documents that are scored instead of failing.
        caller: name of the API key, or digits of its digest; "" without a key. Rate limits and
            fair shares count by it.
        user: end user; the users of one caller share the engine fairly.
        cache: whether scores of earlier requests may be used.
        background: a line of a batch job; it does not count towards admission limits.
        max_query_tokens: a longer query is refused. None: half of what the model reads.
        max_prompt_tokens: maximum length of each prompt, template included; documents that do
            not fit follow `truncation`. None: the model's limit.
        spans: also score the sentences of the best documents; needs `details`, and is only for a
            request that is ranked alone. None: no sentences are scored.
    """

    query: str
    documents: tuple[str, ...]
    instruction: str | None = None
    max_document_tokens: int | None = None
    truncation: Truncation | None = None
    max_chunks: int | None = None
    overlap: int | None = None
    priority: int = 0
    deadline: float | None = None
    partial: bool = False
    caller: str = ""
    user: str = ""
    cache: bool = True
    side: Side | None = None
    details: bool = False
    background: bool = False
    max_query_tokens: int | None = None
    max_prompt_tokens: int | None = None
    spans: SpanOptions | None = None

    @property
    def truncation_policy(self) -> TruncationPolicy:
        return TruncationPolicy(
            self.max_document_tokens, self.truncation, self.max_chunks, self.overlap, self.side
        )


@dataclass(frozen=True, slots=True)
class TruncationPolicy:
    """What to do with documents that do not fit. None: the server's value.

    Attributes:
        tokens: maximum tokens of a document, and of a chunk. None: the model's limit.
        truncation: None together with `chunks`: chunks as long as the model reads.
        chunks: maximum chunks per document; the best one gives the score. None: no maximum.
        overlap: tokens that two neighbouring chunks share.
        side: the end that is cut off, or left out when a document has more than `chunks` chunks;
            right is the end of the text.
    """

    tokens: int | None = None
    truncation: Truncation | None = None
    chunks: int | None = None
    overlap: int | None = None
    side: Side | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A query-document pair as token ids: the model reads `prefix + suffix`.

    Attributes:
        prefix: template, instruction and query. The prompts of one request share one prefix
            *object*, so that an engine computes it once.
        suffix: the document and the end of the template; the score is read at its last id.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)


class AnswerTokenIds(NamedTuple):
    """The answers that the score is read from.

    Attributes:
        yes, no: token ids. With `no` the logit is log p(yes) - log p(no); without (None) it is
            the unnormalized logit of `yes` alone, which has no natural zero.
        scale: the logit is multiplied by it; above 0.
    """

    yes: int
    no: int | None
    scale: float = 1.0


class RelevantSpan(NamedTuple):
    """A sentence that answers the query: `document[start:end]`.

    Attributes:
        start, end: in code points of the document as it was sent; the end is exclusive.
        logit: as `ScoredDocument.logit`, of the sentence alone.
    """

    start: int
    end: int
    logit: float

    def moved(self, characters: int) -> RelevantSpan:
        """The span in a text that has this many more characters before the document."""
        return RelevantSpan(self.start + characters, self.end + characters, self.logit)


@dataclass(frozen=True, slots=True)
class ScoredDocument:
    """One document with its score.

    Attributes:
        index: of the document in the request, from 0.
        logit: log p(yes) - log p(no), in nats; unbounded. Results are ordered by it, because two
            scores can both print as 1.0.
        tokens: tokens the model read for this pair, template included; for a document in chunks
            the tokens of all chunks.
        document_tokens: tokens of the whole document, before truncation.
        kept_tokens: tokens of the document that the model read, each counted once.
        longer: the document has more than `document_tokens`; counting stopped there.
        cached: computed for an earlier request; of a document in chunks, every chunk.
        chunks: number of chunks that were read.
        chunk: index of the best chunk, from 0; the first if several have this logit.
        span: characters of the best chunk in the document's text, as start and end (exclusive);
            None unless `details` was requested.
        cached_tokens: of `tokens`, those computed for an earlier request.
        relevant_spans: its relevant sentences, most relevant first. None: they were not
            requested, not scored in time, or the document is not among the best.
    """

    index: int
    logit: float
    tokens: int
    document_tokens: int
    kept_tokens: int
    longer: bool = False
    cached: bool = False
    chunks: int = 1
    chunk: int = 0
    span: tuple[int, int] | None = None
    cached_tokens: int = 0
    relevant_spans: tuple[RelevantSpan, ...] | None = None

    @property
    def score(self) -> float:
        """p(yes) / (p(yes) + p(no)), in [0, 1]: the model's official relevance score."""
        return sigmoid(self.logit)

    @property
    def truncated(self) -> bool:
        return self.kept_tokens < self.document_tokens


class ScoreThreshold(NamedTuple):
    """Leaves out documents whose shown number is lower.

    Attributes:
        value: compared with the rounded number, so a client can send back one that it has seen.
        on_logits: compared with logits in nats, not with scores in [0, 1].
        configured: from the server's configuration, not from the request.
    """

    value: float
    on_logits: bool
    configured: bool

    def kept(self, documents: Sequence[ScoredDocument]) -> list[ScoredDocument]:
        """The documents that reach the threshold."""
        numbers = shown_numbers(documents, logits=self.on_logits)
        return [
            document
            for document, number in zip(documents, numbers, strict=True)
            if number >= self.value
        ]


@dataclass(frozen=True, slots=True)
class RankResult:
    """The scored documents of the requests that were ranked together.

    Attributes:
        groups: for each request its scored documents, in the order of its documents. With
            `partial`, those that were not scored in time are missing.
        documents: all of them, one request after another.
        truncated: those of them that were cut.
        usage: what the answer is charged for.
        encoding: seconds from text to token ids.
        scoring: seconds from token ids to logits, the wait for the engine included.
        queueing: of `scoring`, seconds before the engine began.
    """

    groups: list[list[ScoredDocument]]
    documents: list[ScoredDocument]
    truncated: list[ScoredDocument]
    usage: RankUsage
    encoding: float = 0.0
    scoring: float = 0.0
    queueing: float = 0.0


class RankUsage(NamedTuple):
    """What a request is charged for. Equal documents count each.

    Attributes:
        documents: documents that have a score.
        cached_documents: of these, the ones computed for an earlier request.
        prompt_tokens: tokens that the model read for them, template included; for a document
            in chunks the tokens of every chunk. With the sentences that were scored for spans.
        cached_tokens: of these, the tokens of pairs computed for an earlier request.
        search_units: Cohere's unit; see `ranking/billing.py`.
    """

    documents: int
    cached_documents: int
    prompt_tokens: int
    cached_tokens: int
    search_units: int


def sigmoid(logit: float) -> float:
    return sigmoids((logit,))[0]


def sigmoids(logits: Iterable[float]) -> list[float]:
    """1 / (1 + exp(-logit)) of each."""
    # Two branches, because exp() of a large positive number overflows.
    return [
        1.0 / (1.0 + math.exp(-logit)) if logit >= 0 else (odds := math.exp(logit)) / (1.0 + odds)
        for logit in logits
    ]


# Results are ordered by logit, highest first; equal logits keep the order of the request, because
# `sorted` is stable: sorted(in_request_order, key=BY_LOGIT, reverse=True).
BY_LOGIT = attrgetter("logit")


def best_first(results: Iterable[ScoredDocument]) -> list[ScoredDocument]:
    """Order results that are in any order."""
    return sorted(sorted(results, key=attrgetter("index")), key=BY_LOGIT, reverse=True)


def shown_numbers(documents: Iterable[ScoredDocument], *, logits: bool) -> list[float]:
    """The scores in [0, 1], or the logits in nats, with the digits that answers show."""
    numbers = [document.logit for document in documents]
    return rounded_all(numbers if logits else sigmoids(numbers))


def rounded(number: float) -> float:
    """A score or logit as answers show it: seven digits, at most 18 characters.

    Java clients read a longer literal as BigDecimal and fail on it.
    """
    return rounded_all((number,))[0]


def rounded_all(numbers: Iterable[float]) -> list[float]:
    """As `rounded`, of each number."""
    return [float(f"{number:.7g}") for number in numbers]
