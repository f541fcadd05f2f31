"""A circuit breaker: after a failure, a service is not called again for some seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from prometheus_client import Counter

_log = logging.getLogger("rankd")

# Seconds without calls after a failure.
PAUSE_SECONDS = 5.0


class CircuitBreaker:
    """Open after a failure, until a call succeeds. Logs one line when it opens or closes.

    Args:
        operation: what fails or works, for the log.
        fallback: what the server does instead, for the log.
        failures: counts failed calls.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        operation: str,
        *,
        fallback: str,
        failures: Counter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._operation = operation
        self._fallback = fallback
        self._failures = failures
        self._clock = clock
        self._retry_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the last call failed."""
        return self._retry_at is not None

    def allows_call(self) -> bool:
        """Whether to call now. While open, one trial call is allowed after each pause."""
        if self._retry_at is None:
            return True
        if self._clock() < self._retry_at:
            return False
        self._retry_at = self._clock() + PAUSE_SECONDS
        return True

    def failed(self, problem: Exception) -> None:
        """Record a failed call, and pause."""
        self._failures.inc()
        if not self.is_open:
            reason = str(problem) or type(problem).__name__
            _log.warning("%s failed: %s; %s", self._operation, reason, self._fallback)
        self._retry_at = self._clock() + PAUSE_SECONDS

    def succeeded(self) -> None:
        """Record a call that worked."""
        if self.is_open:
            _log.info("%s works again", self._operation)
        self._retry_at = None
