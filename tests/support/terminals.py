"""Runs commands on a pseudo-terminal of a given size, and reads its content."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass

from support.servers import START_SECONDS, command

# Escape sequences, which a terminal does not show.
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass
class Shown:
    """Exit status and output of a command on a terminal.

    Attributes:
        raw: with all escape sequences.
    """

    status: int
    raw: str

    @property
    def lines(self) -> list[str]:
        """The final lines: after a carriage return, text replaces the line."""
        kept = [line.rstrip("\r").split("\r")[-1] for line in self.raw.split("\n")]
        return [_ESCAPE.sub("", line) for line in kept]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def on_terminal(
    *arguments: str,
    columns: int = 80,
    until: str | None = None,
    program: list[str] | None = None,
    seconds: float = START_SECONDS,
    environment: Mapping[str, str] | None = None,
) -> Shown:
    """Run a rankd command on a terminal to its end.

    Args:
        until: press Ctrl-C when this text has appeared.
        program: run this instead of rankd.
        environment: added to this process's environment without its colour settings.
    """
    leader, follower = pty.openpty()
    termios.tcsetwinsize(follower, (24, columns))
    left_out = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES")
    inherited = {name: value for name, value in os.environ.items() if name not in left_out}
    process = subprocess.Popen(
        program or command(*arguments),
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**inherited, "TERM": "xterm-256color", **(environment or {})},
        start_new_session=True,
    )
    os.close(follower)
    try:
        raw = _read(leader, process, until, time.monotonic() + seconds)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(leader)
    return Shown(process.returncode, raw)


def _read(leader: int, process: subprocess.Popen[bytes], until: str | None, deadline: float) -> str:
    content = bytearray()
    while time.monotonic() < deadline:
        if not select.select([leader], [], [], 0.1)[0]:
            if process.poll() is not None:
                break
            continue
        try:
            chunk = os.read(leader, 65536)
        except OSError:  # EIO: no process has the other end open any more.
            break
        content += chunk
        if until is not None and until in content.decode(errors="replace"):
            process.send_signal(signal.SIGINT)
            until = None
    process.wait(timeout=max(1, deadline - time.monotonic()))
    assert until is None, f"{until!r} did not appear in {content.decode(errors='replace')!r}"
    return content.decode(errors="replace")
