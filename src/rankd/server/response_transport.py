"""The transport that responses are written to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

# Bytes of a body that are copied behind its head, to be sent with it.
_MAX_JOINED_BYTES = 65_536


class ResponseTransport:
    """The transport of responses: the head and the first part of the body are sent together.

    Otherwise a server that is killed between the two leaves a proxy with a head that it has passed
    on, and the request cannot be sent to another server any more.

    Args:
        loop: sends a head that no body follows at once, as that of a stream.
        close: called by `close`; it lets the rest of the request arrive.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        close: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._close = close
        self._head_next = True
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._head_next:
            self._head_next, self._head = False, data
            self._loop.call_soon(self.flush)
            return
        if len(data) > _MAX_JOINED_BYTES:
            self.flush()
        head, self._head = self._head, b""
        self._transport.write(head + data)

    def flush(self) -> None:
        """Send a head that waits for a body."""
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)

    def end(self) -> None:
        """What is written next is the head of another response."""
        self.flush()
        self._head_next = True

    def close(self) -> None:
        self.flush()
        self._close()
