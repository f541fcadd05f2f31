"""Counts requests and their outcomes; every request must have exactly one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from judge import FAULTS


@dataclass
class Ledger:
    """Each request is opened once and closed once.

    Attributes:
        sent: requests by kind of client.
        outcomes: requests by kind and outcome.
        reasons: requests by kind and reason of refusal.
        faults: one sentence for each fault.
    """

    sent: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def open(self, kind: str) -> str:
        """The id of the next request, valid in `X-Request-Id`."""
        self.sent[kind] += 1
        return re.sub(r"\W+", "-", f"{kind}-{self.sent[kind]}")

    def close(self, kind: str, name: str, outcome: str, why: str = "") -> None:
        self.outcomes[kind, outcome] += 1
        if outcome in FAULTS:
            self.faults.append(f"{name}: {outcome}: {why}")
        elif why:
            self.reasons[kind, why] += 1

    def of(self, kinds: Iterable[str]) -> Counter[str]:
        """Requests of some kinds, by outcome."""
        selected = set(kinds)
        counts: Counter[str] = Counter()
        for (kind, outcome), count in self.outcomes.items():
            if kind in selected:
                counts[outcome] += count
        return counts

    def poisoned(self) -> int:
        """Requests refused because the server blames them for a crash of the engine."""
        return sum(times for (_, why), times in self.reasons.items() if "poison" in why)

    @property
    def unaccounted(self) -> dict[str, int]:
        """Requests without exactly one outcome, by kind; negative: more than one."""
        missing = {kind: sent - self.of([kind]).total() for kind, sent in self.sent.items()}
        return {kind: count for kind, count in missing.items() if count}
