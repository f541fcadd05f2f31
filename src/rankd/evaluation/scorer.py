"""The contract of a scorer: what gives `rankd eval` and `rankd calibrate` their logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rankd.config.settings import Settings
from rankd.types import sigmoid

# Documents per call: enough for an engine to share the query's prefix, and below the usual
# limits of servers.
DOCUMENTS_PER_CALL = 100

# A model's probabilities for one pair differ by less than this between half-precision batches.
_PROBE_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class QueryScores:
    """Scores of one query's documents, in their order.

    Attributes:
        logits: in nats; computed from probabilities if the server gives no logits.
        warning: the first warning of the answer, such as truncated documents.
    """

    logits: list[float]
    warning: str | None = None


@dataclass(frozen=True)
class ScorerOptions:
    """Which scorer to open: a local engine, or a server.

    Attributes:
        settings: of the local engine; for a server only `api_keys` is used.
        url: of the server; None opens a local engine.
        instruction: None takes the default of the engine or server.
        model: the model name to send to a server; None sends none.
    """

    settings: Settings
    url: str | None = None
    instruction: str | None = None
    model: str | None = None


class Scorer(Protocol):
    """Scores documents, on a local engine or a server.

    Attributes:
        model: the model's name.
        about: everything that decides the scores; equal values give equal scores.
        probe: logits of known pairs, by which a server is recognised; empty for a local
            engine, which `about` identifies.
    """

    model: str
    about: dict[str, Any]
    probe: list[float]

    async def score(
        self, query: str, documents: Sequence[str], instruction: str | None = None
    ) -> QueryScores:
        """Score N documents; returns N logits in their order."""
        ...


def same_scorer(probe: Sequence[float], earlier: Sequence[float]) -> bool:
    """Whether a server's probe matches an earlier one, within 0.05 of each probability."""
    return len(probe) == len(earlier) and all(
        abs(sigmoid(now) - sigmoid(then)) <= _PROBE_TOLERANCE
        for now, then in zip(probe, earlier, strict=True)
    )
