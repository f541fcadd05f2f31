"""Autoscaling by waiting tokens. Serve runs the policy in its controller, pickled by value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ray.serve.config import AutoscalingContext


class WaitingTokensPolicy:
    """As many replicas as score what waits within some seconds.

    Args:
        seconds_of_patience: how long new tokens may wait for those before them.
        tokens_per_second: of one replica; 0: as measured.
    """

    def __init__(self, seconds_of_patience: float = 5.0, tokens_per_second: float = 0.0) -> None:
        self._patience = seconds_of_patience
        self._rate = tokens_per_second

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        stats = ctx.aggregated_metrics or {}
        waiting = sum(stats.get("waiting_tokens", {}).values())
        return self.wanted(waiting, self._measured(stats), ctx.current_num_replicas), {}

    def _measured(self, stats: Mapping[str, Mapping[Any, float]]) -> float:
        rates = [rate for rate in stats.get("tokens_per_second", {}).values() if rate]
        return self._rate or (sum(rates) / len(rates) if rates else 0.0)

    def wanted(self, waiting: float, rate: float, current: int) -> int:
        """Replicas for `waiting` tokens at `rate` tokens per second and replica."""
        if not waiting:
            return 1
        # Nothing was scored yet, so nothing is known.
        return math.ceil(waiting / (rate * self._patience)) if rate else max(current, 1)
