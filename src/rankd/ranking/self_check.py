"""Known pairs through the whole path: does this set-up give right scores?

A wrong template, a head that was quantized away or a kernel that reads another
cache gives scores that look like scores. These pairs are so plain that a working
reranker cannot get them wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rankd.ranking.ranker import Ranker
from rankd.types import RankRequest, sigmoid


@dataclass(frozen=True, slots=True)
class KnownPair:
    query: str
    right: str
    wrong: str


_BEIJING = "The capital of China is Beijing."
_GRAVITY = (
    "Gravity is a force that attracts two bodies towards each other. It gives weight to "
    "physical objects and is responsible for the movement of planets around the sun."
)

# The first two are the model card's own; the others ask in Chinese and of other things.
KNOWN_PAIRS = (
    KnownPair("What is the capital of China?", _BEIJING, _GRAVITY),
    KnownPair("Explain gravity", _GRAVITY, _BEIJING),
    KnownPair("中国的首都是哪里？", "中国的首都是北京。", "重力是使两个物体相互吸引的力。"),
)

# Nats between the right and the wrong document. Random weights stay far below,
# a trained reranker far above (several nats).
LEAST_MARGIN = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """One known pair, judged.

    Attributes:
        right, wrong: logits, in nats.
    """

    pair: KnownPair
    right: float
    wrong: float

    @property
    def problem(self) -> str | None:
        """What is wrong with it, in a few words; None when nothing is."""
        if self.right <= self.wrong:
            return "wrong order"
        if self.right - self.wrong < LEAST_MARGIN:
            return f"margin {self.right - self.wrong:.2f} < {LEAST_MARGIN} nats"
        if not self.wrong < 0 < self.right:
            return "both on one side of 0.5"
        return None


async def score_known_pairs(
    ranker: Ranker, pairs: Sequence[KnownPair] = KNOWN_PAIRS
) -> list[Outcome]:
    """Score every pair through prompt, engine and all."""
    # Computed, never remembered: a shared cache knows what another server made of them.
    requests = [RankRequest(pair.query, (pair.right, pair.wrong), cache=False) for pair in pairs]
    results = await ranker.rank_all(requests)
    return [
        Outcome(pair, right.logit, wrong.logit)
        for pair, (right, wrong) in zip(pairs, results, strict=True)
    ]


def failure_message(outcomes: Sequence[Outcome]) -> str | None:
    """What an operator should read when a pair fails; None when all is well."""
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
            "Scores of this model would be wrong. Usual causes: the checkpoint is no reranker "
            "(a base or embedding model), its conversion dropped or swapped the yes/no rows, "
            "or its head was quantized.",
            "See all pairs with `rankd check`; serve anyway with --self-check warn or off.",
        ]
    )


def table(outcomes: Sequence[Outcome]) -> str:
    """Every pair as a row of plain text."""
    rows = [f"{'query':<32} {'right':>7} {'wrong':>7} {'margin':>7}  verdict"]
    for outcome in outcomes:
        width = 32 - sum(ord(character) > 0x2E80 for character in outcome.pair.query)
        rows.append(
            f"{outcome.pair.query:<{width}} {sigmoid(outcome.right):>7.4f} "
            f"{sigmoid(outcome.wrong):>7.4f} {outcome.right - outcome.wrong:>7.2f}  "
            f"{outcome.problem or 'ok'}"
        )
    return "\n".join(rows)
