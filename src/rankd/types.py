"""The words that cross from one room to another; nothing that only one room uses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, NamedTuple

# What becomes of a document that does not fit: a part of it is read, the request is refused,
# or all of it is read in chunks.
Truncation = Literal["cut", "refuse", "chunk"]

# The end that is cut off.
Side = Literal["right", "left"]

# Of asks in the background: behind every priority that a request can have.
BACKGROUND_PRIORITY = 1000


@dataclass(frozen=True, slots=True)
class RankRequest:
    """One question and the documents to judge by it, whatever dialect it came in.

    Attributes:
        documents: N >= 1, in the order of the request; verdicts refer to them by index.
        instruction: what relevance means here; None takes the server's.
        max_document_tokens: as `tokens` of a `Fit`, and so are `truncation`, `side`,
            `max_chunks` and `overlap`; None takes the server's.
        details: where in each document its best chunk stands is wanted.
        priority: 0 is sooner than 1; the default of every dialect is 0.
        deadline: `time.monotonic()` after which the answer is of no use; None waits.
        partial: what is scored by then is better than nothing.
        caller: whose limits it counts towards: the name of the key, or digits of its
            digest; "" is everyone without one.
        user: whom the caller asks for; callers and their users share the engine fairly.
        cache: whether scores that were computed before will do.
        background: of a batch job: outside the limits on what may wait, of which it takes
            nothing from others.
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


@dataclass(frozen=True, slots=True)
class TruncationPolicy:
    """What becomes of documents that do not fit; None takes the server's.

    Attributes:
        tokens: a document longer than this does not fit, nor does a chunk; None leaves
            that to the model's own limit.
        truncation: None with a number of `chunks` makes them as long as the model reads.
        chunks: in which one document is read, at most; None are as many as it has. The
            best of them counts.
        overlap: tokens that two neighbouring chunks share.
        side: where a document is cut, and which end of it chunks leave out when it has
            more than `chunks`; the right is the end of the text.
    """

    tokens: int | None = None
    truncation: Truncation | None = None
    chunks: int | None = None
    overlap: int | None = None
    side: Side | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """A pair as token ids: what the model reads is `head + tail`.

    Attributes:
        head: template, instruction and query. The prompts of one request share
            one head *object*, so an engine may compute it once.
        tail: the document and the template's end; the score is read at its last id.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prefix) + len(self.suffix)


class AnswerTokenIds(NamedTuple):
    """The token ids of the two words the model chooses between."""

    yes: int
    no: int


@dataclass(frozen=True, slots=True)
class ScoredDocument:
    """What the model said of one document.

    Attributes:
        index: the document's place in the request, from 0.
        logit: log p(yes) - log p(no), in nats; unbounded. Order is decided on it:
            two scores can both round to 1.0.
        tokens: tokens the model read for this pair, template included; of all its
            pieces when the document was read in pieces.
        document_tokens: tokens of the whole document, before any cut.
        kept_tokens: tokens of the document that the model read, each once.
        longer: the document has more than `document_tokens`; they were not all counted.
        cached: computed for an earlier request; all its pieces, where it has several.
        pieces: in how many it was read.
        piece: which of them, from 0, is the best: the first of those with this logit.
        span: where that one stands in the document's text: the first of its characters
            and the one behind its last; None unless it was asked for.
        cached_tokens: of `tokens`, those of pieces that were.
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

    @property
    def score(self) -> float:
        """p(yes) / (p(yes) + p(no)), in [0, 1]: the model's official relevance score."""
        return sigmoid(self.logit)

    @property
    def truncated(self) -> bool:
        return self.kept_tokens < self.document_tokens


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
            in chunks the tokens of every chunk.
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


def best_first(results: Iterable[ScoredDocument]) -> list[ScoredDocument]:
    """Order by logit, highest first; equal logits keep the order of the request."""
    in_order = sorted(results, key=attrgetter("index"))
    return sorted(in_order, key=attrgetter("logit"), reverse=True)  # Keeps the order of equals.


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
