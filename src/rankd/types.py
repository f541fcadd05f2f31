"""The words that cross from one room to another; nothing that only one room uses."""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, NamedTuple

Truncation = Literal["end", "start", "refuse"]

# Of asks in the background: behind every priority that a request can have.
LAST_PRIORITY = 1000

# The id of the request that is being answered, for whoever must name it in a log.
REQUEST_ID: ContextVar[str] = ContextVar("REQUEST_ID", default="without an id")


@dataclass(frozen=True, slots=True)
class Ask:
    """One question and the documents to judge by it, whatever dialect it came in.

    Attributes:
        documents: N >= 1, in the order of the request; verdicts refer to them by index.
        instruction: what relevance means here; None takes the server's.
        max_document_tokens: a document longer than this does not fit; None leaves that
            to the model's own limit.
        truncation: where a document that does not fit is cut: at its end, at its start,
            or nowhere: then the request is refused.
        max_chunks: a document that does not fit is read in up to so many pieces, and the
            best of them counts; 1 cuts it.
        overlap: tokens that two neighbouring pieces share.
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
    truncation: Truncation = "end"
    max_chunks: int = 1
    overlap: int = 0
    priority: int = 0
    deadline: float | None = None
    partial: bool = False
    caller: str = ""
    user: str = ""
    cache: bool = True
    background: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """A pair as token ids: what the model reads is `head + tail`.

    Attributes:
        head: template, instruction and query. The prompts of one request share
            one head *object*, so an engine may compute it once.
        tail: the document and the template's end; the score is read at its last id.
    """

    head: tuple[int, ...]
    tail: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.head) + len(self.tail)


class Answers(NamedTuple):
    """The token ids of the two words the model chooses between."""

    yes: int
    no: int


@dataclass(frozen=True, slots=True)
class Verdict:
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
    """

    index: int
    logit: float
    tokens: int
    document_tokens: int
    kept_tokens: int
    longer: bool = False
    cached: bool = False

    @property
    def score(self) -> float:
        """p(yes) / (p(yes) + p(no)), in [0, 1]: the model's official relevance score."""
        return sigmoid(self.logit)

    @property
    def truncated(self) -> bool:
        return self.kept_tokens < self.document_tokens


class Ranking(NamedTuple):
    """What became of the asks of one request.

    Attributes:
        groups: for each ask its verdicts, in the order of its documents. A partial ask
            lacks those of the documents that were not scored in time.
        encoding: seconds from text to token ids.
        scoring: seconds from token ids to logits, waiting for the engine included.
    """

    groups: list[list[Verdict]]
    encoding: float
    scoring: float


def sigmoid(logit: float) -> float:
    # Two branches, because exp() of a large positive number overflows.
    if logit >= 0:
        return 1.0 / (1.0 + math.exp(-logit))
    odds = math.exp(logit)
    return odds / (1.0 + odds)


def best_first(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Order by logit, highest first; equal logits keep the order of the request."""
    return sorted(verdicts, key=lambda verdict: (-verdict.logit, verdict.index))
