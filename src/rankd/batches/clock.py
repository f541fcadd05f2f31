"""Whether the clock of the machine can be believed when it says that something has expired."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

_log = logging.getLogger("rankd")

DAY = 86_400

# Seconds that the clock may go forward by itself. An operator has as long to notice and correct it.
_MAX_JUMP = DAY


class ClockGuard:
    """Holds back deletions for a day after the clock has jumped forward by more than a day.

    A clock that is wrong by a month would otherwise delete all files at once. A server that was off
    for more than a day looks the same, so it begins a day later, too.

    Args:
        last_seen: the newest time known, in seconds since the epoch; None: none is.
        wall: seconds since the epoch.
        monotonic: seconds that only ever pass.
    """

    def __init__(
        self,
        last_seen: int | None,
        *,
        wall: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._seen = wall() if last_seen is None else float(last_seen), monotonic()
        self._held_until = 0.0

    def allows_deletion(self) -> bool:
        """Whether to believe the clock now."""
        wall, monotonic = self._wall(), self._monotonic()
        jump = (wall - self._seen[0]) - (monotonic - self._seen[1])
        self._seen = wall, monotonic
        if jump > _MAX_JUMP:
            self._held_until = monotonic + DAY
            _log.warning(
                "the clock is %.1f days ahead of the newest time in --batch-dir: the server was "
                "off, or the clock is wrong. No file of batch jobs is deleted for 24 hours; "
                "correct the clock if it is wrong",
                jump / DAY,
            )
        return monotonic >= self._held_until
