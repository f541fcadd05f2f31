"""Compares the replicas of `--engine ray`, for `rankd check`."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from rankd.engines.ray.engine import RayEngine
from rankd.ranking.ranker import Ranker
from rankd.ranking.self_check import KNOWN_PAIRS
from rankd.types import RankRequest

# Nats by which equal prompts may differ between replicas with equal arithmetic.
_TOLERANCE = 1e-3


class ReplicaReport(BaseModel):
    """One replica of `--engine ray`."""

    model_config = ConfigDict(extra="forbid")

    name: str
    node: str = Field(description="Address of its machine.")
    device: str
    largest_difference: float = Field(
        description="Nats between its logits of the known pairs and those of the first replica."
    )

    @property
    def line(self) -> str:
        """For people."""
        verdict = "ok" if self.largest_difference <= _TOLERANCE else "other scores"
        return (
            f"replica {self.name:<10} on {self.node}, {self.device}: "
            f"largest difference {self.largest_difference:.2g} nats, {verdict}"
        )


async def compare_replicas(ranker: Ranker) -> list[ReplicaReport]:
    """Score the known pairs on each replica; none if the engine is another one."""
    engine = ranker.engine
    if not isinstance(engine, RayEngine):
        return []
    requests = [RankRequest(pair.query, (pair.right, pair.wrong)) for pair in KNOWN_PAIRS]
    prompts = [prompt for one in await ranker.encoder.encode(requests) for prompt in one.prompts]
    reports: list[ReplicaReport] = []
    first: list[float] = []
    for replica in engine.replicas:
        logits = await engine.score_on(replica, prompts)
        first = first or logits
        largest = max(abs(one - other) for one, other in zip(first, logits, strict=True))
        facts = replica.facts
        reports.append(
            ReplicaReport(
                name=replica.name,
                node=facts.node,
                device=facts.engine.device,
                largest_difference=largest,
            )
        )
    return reports


def difference(replicas: Sequence[ReplicaReport]) -> str | None:
    """What is wrong with the replicas; None if their scores agree."""
    wrong = [one.name for one in replicas if not one.largest_difference <= _TOLERANCE]
    if not wrong:
        return None
    return f"these replicas give other scores than {replicas[0].name}: {', '.join(wrong)}"
