"""The open connections that have no request, so that the oldest can make room for a new one."""

from __future__ import annotations

from itertools import chain
from typing import Protocol

from rankd.telemetry import metrics


class Closable(Protocol):
    def make_room(self) -> None:
        """Close the connection at once; it no longer counts as open."""


class IdleConnections:
    """Connections whose next request has not arrived, oldest first.

    A connection that never sent a request is closed before one that is kept between two
    requests: silent clients cannot push out those that work.
    """

    def __init__(self) -> None:
        # Dictionaries, because they keep the order and remove in constant time.
        self._silent: dict[Closable, None] = {}
        self._kept: dict[Closable, None] = {}

    def add(self, connection: Closable, *, kept: bool) -> None:
        """Count a connection as idle from now on.

        Args:
            kept: it has answered a request before.
        """
        (self._kept if kept else self._silent)[connection] = None

    def remove(self, connection: Closable) -> None:
        """The connection has a request, or is closed."""
        self._silent.pop(connection, None)
        self._kept.pop(connection, None)

    def close_oldest(self) -> bool:
        """Close the oldest idle connection; returns False if none is idle."""
        oldest = next(chain(self._silent, self._kept), None)
        if oldest is None:
            return False
        self.remove(oldest)
        oldest.make_room()
        metrics.IDLE_CLOSED.inc()
        return True
