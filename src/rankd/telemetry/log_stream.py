"""Writes log lines to a pipe or terminal without waiting for its reader.

A process that waits for the reader of its log stands still with it: the pipe of a supervisor that
hangs is full after 64 KiB, and a terminal stops at Ctrl-S.
"""

from __future__ import annotations

import atexit
import os
import select
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

# Bytes of lines that wait for the reader; further lines are dropped.
_MAX_WAITING_BYTES = 1024 * 1024

# Bytes that a pipe takes at once if it takes any (POSIX: at least 512; Linux: 4096).
_PIPE_BUF = select.PIPE_BUF

# Seconds at exit for the reader to take the rest.
_EXIT_SECONDS = 1.0


class LogStream:
    """A stream for `logging.StreamHandler` whose `write` never blocks.

    Lines that the reader has not taken are written with the next line, or by `write_waiting`.

    Args:
        target: the stream whose descriptor is written to.
        notice: the line that says how many lines were dropped.

    Raises:
        OSError: the target is no pipe, socket or terminal.
    """

    def __init__(self, target: TextIO, notice: Callable[[int], str]) -> None:
        target.flush()
        self._fd = _without_blocking(target.fileno())
        self._encoding = target.encoding
        self._notice = notice
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._dropped = self._announced = self._reported = 0
        atexit.register(self._write_at_exit)

    def write(self, text: str) -> None:
        """Write whole lines, after those that wait."""
        line = text.encode(self._encoding, "backslashreplace")
        with self._lock:
            self._write_waiting()
            if self._waiting_bytes + len(line) > _MAX_WAITING_BYTES:
                self._dropped += 1
                return
            self._append(line)
            self._write_waiting()

    def flush(self) -> None:
        """Nothing: waiting for the reader is what this class avoids."""

    def write_waiting(self) -> int:
        """Write what the reader takes now; returns the lines dropped since the last call."""
        with self._lock:
            self._write_waiting()
            dropped, self._reported = self._dropped - self._reported, self._dropped
            return dropped

    def _append(self, line: bytes) -> None:
        self._waiting.append(line)
        self._waiting_bytes += len(line)

    def _write_waiting(self) -> None:
        while self._waiting:
            line = self._waiting.popleft()
            size = self._write_part(line)
            self._waiting_bytes -= size
            if size < len(line):
                self._waiting.appendleft(line[size:])
            if not size:
                return
            if not self._waiting and self._dropped > self._announced:
                dropped, self._announced = self._dropped - self._announced, self._dropped
                self._append(self._notice(dropped).encode(self._encoding, "backslashreplace"))

    def _write_part(self, line: bytes) -> int:
        """Bytes that were written; 0 if the reader takes nothing now."""
        with suppress(OSError):  # Another process filled the pipe, or the reader is gone.
            poll = select.poll()
            poll.register(self._fd, select.POLLOUT)
            if poll.poll(0):
                return os.write(self._fd, line[:_PIPE_BUF])
        return 0

    def _write_at_exit(self) -> None:
        deadline = time.monotonic() + _EXIT_SECONDS
        while self._waiting and time.monotonic() < deadline:
            self.write_waiting()
            time.sleep(0.01)


def _without_blocking(fd: int) -> int:
    """A descriptor of the same pipe, socket or terminal, non-blocking where the system has that.

    A flag on `fd` itself would change it for all processes that share it. Without the flag,
    a write can still block when another process fills the pipe between poll and write.
    """
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)):
        raise OSError("files need no waiting")
    with suppress(OSError):
        return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    return os.dup(fd)
