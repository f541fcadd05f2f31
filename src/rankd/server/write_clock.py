"""Closes connections whose clients do not read their answer, and counts the unread bytes."""

from __future__ import annotations

import array
import asyncio
import fcntl
import socket
import struct
import termios
from contextlib import suppress

from rankd.server.middleware.body_limits import ByteBudget, ByteReservation

# Bytes that a client must take within the time, or the whole rest if that is less.
PART_BYTES = 64 * 1024


class WriteClock:
    """The time that a client has for each part of the bytes that wait to be sent to it.

    It runs while bytes wait and nothing is added to them, so that fewer bytes mean progress.

    Args:
        budget: the waiting bytes are counted in it while the clock runs.
    """

    def __init__(self, transport: asyncio.Transport, budget: ByteBudget) -> None:
        self._transport = transport
        self._reservation = ByteReservation(budget)
        self._timer: asyncio.TimerHandle | None = None

    def start(self, seconds: float) -> None:
        """Abort the connection unless `PART_BYTES` are taken in every `seconds` from now on."""
        self.stop()
        if size := self._transport.get_write_buffer_size():
            self._reservation.hold(size)
            loop = asyncio.get_running_loop()
            unread = size + self._kernel_bytes()
            self._timer = loop.call_later(seconds, self._check, seconds, unread)

    def stop(self) -> None:
        """The bytes were taken, or the connection is closed."""
        self._reservation.hold(0)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check(self, seconds: float, before: int) -> None:
        size = self._transport.get_write_buffer_size()
        if size and size + self._kernel_bytes() > before - PART_BYTES:
            self.stop()
            self._reset()
        else:
            self.start(seconds)

    def _reset(self) -> None:
        """Close with a reset: after a FIN the kernel would keep megabytes for the client."""
        linger = struct.pack("ii", 1, 0)
        with suppress(OSError):
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()

    def _kernel_bytes(self) -> int:
        """Bytes that the kernel has not delivered; it asks for more only when many are."""
        count = array.array("i", [0])
        with suppress(OSError, ValueError):  # The socket is closed.
            fcntl.ioctl(self._transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, count)
        return count[0]
