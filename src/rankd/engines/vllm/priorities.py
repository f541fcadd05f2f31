"""Who is next: priority first, then fairness among calls of equal priority.

vLLM sorts what waits by one number, lowest first. A document's number is the moment at
which its turn would come if its call had the engine to itself, on a clock that counts
tokens (start-time fair queueing, doi.org/10.1145/248156.248171). A call of five documents
that arrives behind one of a thousand thus waits for about five of them.
"""

from __future__ import annotations

from collections.abc import Sequence

from rankd.types import Prompt

# One step of priority outweighs more tokens than an engine reads in a year.
_STEP = 1 << 48
# vLLM packs the number into 64 bits.
_MOST = 1000


class Turns:
    def __init__(self) -> None:
        self._clock = 0

    def of(self, prompts: Sequence[Prompt], priority: int) -> list[int]:
        """A number for each prompt of one call."""
        turn = max(-_MOST, min(_MOST, priority)) * _STEP + self._clock
        turns = []
        for prompt in prompts:
            turns.append(turn)
            turn += len(prompt)
        return turns

    def passed(self, turn: int) -> None:
        """The prompt of this number is scored; who comes now starts behind it."""
        self._clock = max(self._clock, turn % _STEP)
