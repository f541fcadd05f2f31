"""How fast the engine computes, from the batches that it has finished."""

from __future__ import annotations

import time

# Weight of all earlier batches when another one has finished.
_DECAY = 0.9


class Speed:
    """Tokens per second of the engine while it has work; the last ten batches or so count.

    Attributes:
        tokens_per_second: 0 before the first batch has finished.
    """

    def __init__(self) -> None:
        self.tokens_per_second = 0.0
        self._tokens = 0.0
        self._seconds = 0.0
        self._last_finished = 0.0

    def add(self, tokens: int, *, sent: float) -> None:
        """Note that a batch has finished now.

        Args:
            sent: `time.monotonic()` when the engine got it. While it was behind another batch
                the time counts as that one's.
        """
        now = time.monotonic()
        self._tokens = self._tokens * _DECAY + tokens
        self._seconds = self._seconds * _DECAY + now - max(sent, self._last_finished)
        self._last_finished = now
        self.tokens_per_second = self._tokens / max(self._seconds, 1e-6)
