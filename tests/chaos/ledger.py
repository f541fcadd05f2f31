"""Every request that was sent, and what became of it: exactly one thing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from judge import FAULTS


@dataclass
class Ledger:
    """Counts by kind of client; each request is opened once and closed once.

    Attributes:
        endings: by kind and ending.
        reasons: of refusals, by kind.
        complaints: the first faults in words.
    """

    sent: Counter[str] = field(default_factory=Counter)
    endings: Counter[tuple[str, str]] = field(default_factory=Counter)
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)

    def open(self, kind: str) -> str:
        """A name for the next request of a kind, plain enough for `X-Request-Id`."""
        self.sent[kind] += 1
        return re.sub(r"\W+", "-", f"{kind}-{self.sent[kind]}")

    def close(self, kind: str, name: str, ending: str, why: str = "") -> None:
        self.endings[kind, ending] += 1
        if ending in FAULTS:
            self.complaints.append(f"{name}: {ending}: {why}")
        elif why:
            self.reasons[kind, why] += 1

    def of(self, kinds: Iterable[str]) -> Counter[str]:
        """Of some kinds, how many requests ended how."""
        wanted = set(kinds)
        counts: Counter[str] = Counter()
        for (kind, ending), count in self.endings.items():
            if kind in wanted:
                counts[ending] += count
        return counts

    def poisoned(self) -> int:
        """Requests that were taken for what killed the engine."""
        return sum(times for (_, why), times in self.reasons.items() if "poison" in why)

    @property
    def unaccounted(self) -> dict[str, int]:
        """Requests that did not end exactly once, by kind; less than none ended twice."""
        missing = {kind: sent - self.of([kind]).total() for kind, sent in self.sent.items()}
        return {kind: count for kind, count in missing.items() if count}
