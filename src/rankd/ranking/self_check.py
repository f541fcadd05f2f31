"""The self-check: scores known pairs through encoder and engine, to find wrong scores.

A wrong template, a damaged LM head or a faulty kernel still gives numbers between 0 and 1.
These pairs are so easy that a working reranker gets them right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankd.ranking.ranker import Ranker
from rankd.types import RankRequest, sigmoid


@dataclass(frozen=True, slots=True)
class KnownPair:
    """A query with a relevant (`right`) and an irrelevant (`wrong`) document."""

    query: str
    right: str
    wrong: str


_BEIJING = "The capital of China is Beijing."
_GRAVITY = (
    "Gravity is a force that attracts two bodies towards each other. It gives weight to "
    "physical objects and is responsible for the movement of planets around the sun."
)

# The first two are the example of Qwen's model card; the last is in Chinese.
KNOWN_PAIRS = (
    KnownPair("What is the capital of China?", _BEIJING, _GRAVITY),
    KnownPair("Explain gravity", _GRAVITY, _BEIJING),
    KnownPair("中国的首都是哪里？", "中国的首都是北京。", "重力是使两个物体相互吸引的力。"),
)

# Minimum difference of the two logits, in nats, before the model's scale. Random weights give
# far less, a trained reranker far more (several nats).
MIN_MARGIN = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The logits of one known pair.

    Attributes:
        right, wrong: logits of the two documents, in nats.
        min_margin: minimum difference of the two.
        has_zero: whether a logit of 0 lies between relevant and irrelevant: not if it is that of
            one token alone.
    """

    pair: KnownPair
    right: float
    wrong: float
    min_margin: float = MIN_MARGIN
    has_zero: bool = True

    @property
    def problem(self) -> str | None:
        """What is wrong with the logits, in a few words; None if they are right."""
        if not self.right > self.wrong:  # Also for a logit that is not a number.
            return "wrong order"
        if self.right - self.wrong < self.min_margin:
            return f"margin {self.right - self.wrong:.2f} < {self.min_margin:.3g} nats"
        if self.has_zero and not self.wrong < 0 < self.right:
            return "both on one side of 0.5"
        return None


async def score_known_pairs(
    ranker: Ranker, pairs: Sequence[KnownPair] = KNOWN_PAIRS
) -> list[Outcome]:
    """Score every pair as requests are scored, but never from the cache."""
    # A shared cache may hold another server's scores of these pairs.
    requests = [RankRequest(pair.query, (pair.right, pair.wrong), cache=False) for pair in pairs]
    results = await ranker.rank_all(requests)
    answers = ranker.encoder.answers
    min_margin, has_zero = MIN_MARGIN * answers.scale, answers.no is not None
    return [
        Outcome(pair, right.logit, wrong.logit, min_margin, has_zero)
        for pair, (right, wrong) in zip(pairs, results, strict=True)
    ]


def failure_message(outcomes: Sequence[Outcome]) -> str | None:
    """The message for the operator if a pair fails; None if all pass."""
    failed = [outcome for outcome in outcomes if outcome.problem]
    if not failed:
        return None
    lines = [
        f"  {outcome.pair.query!r}: {outcome.problem} "
        f"(right {sigmoid(outcome.right):.3f}, wrong {sigmoid(outcome.wrong):.3f})"
        for outcome in failed
    ]
    return "\n".join(
        [
            f"the self-check failed on {len(failed)} of {len(outcomes)} known pairs:",
            *lines,
            "Scores of this model would be wrong. Usual causes: the checkpoint is not a reranker "
            "(but a base or embedding model), its conversion dropped or swapped the yes/no rows, "
            "or its LM head was quantized.",
            "Run `rankd check` to see all pairs. To serve anyway: --self-check warn, or off.",
        ]
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """A plain-text table with a header and one row for each pair."""
    rows = [f"{'query':<32} {'right':>7} {'wrong':>7} {'margin':>7}  verdict"]
    for outcome in outcomes:
        width = 32 - sum(ord(character) > 0x2E80 for character in outcome.pair.query)
        rows.append(
            f"{outcome.pair.query:<{width}} {sigmoid(outcome.right):>7.4f} "
            f"{sigmoid(outcome.wrong):>7.4f} {outcome.right - outcome.wrong:>7.2f}  "
            f"{outcome.problem or 'ok'}"
        )
    return "\n".join(rows)
