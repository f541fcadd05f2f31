"""Real servers for tests: `rankd serve` on a free port of 127.0.0.1."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

START_SECONDS = 120


@dataclass
class Server:
    """A running server and its stderr."""

    process: subprocess.Popen[str]
    url: str
    _stderr: list[str]
    _reader: threading.Thread

    def stop(self, signal: int) -> tuple[int, str]:
        """Signal it and wait for its end; gives the exit status and stderr."""
        self.process.send_signal(signal)
        return self.ended()

    def ended(self) -> tuple[int, str]:
        """Like `stop`, for a server that ends by itself."""
        self.process.wait(timeout=180)
        self._reader.join(timeout=10)
        return self.process.returncode, "".join(self._stderr)


def free_port() -> int:
    """A port that no program uses now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "rankd", *arguments]


def run(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        env=os.environ | environment,
        check=False,
    )


# Sets constants of modules by their full names, and then runs the command line.
_WITH_CONSTANTS = """
import importlib, json, sys
for name, value in json.loads(sys.argv.pop(1)).items():
    module, _, constant = name.rpartition(".")
    assert hasattr(importlib.import_module(module), constant), name
    setattr(importlib.import_module(module), constant, value)
from rankd.cli.main import main
sys.exit(main())
"""


@contextmanager
def serving(
    *arguments: str,
    port: int = 0,
    constants: Mapping[str, float] | None = None,
    **environment: str,
) -> Iterator[Server]:
    """Start a server and wait until it is ready; killed at the end if it still runs.

    Args:
        constants: values for module constants, by full name such as `rankd.ranking.cache.TTL`.
    """
    program = command("serve", *arguments, "--port", str(port))
    if constants:
        program[1:3] = ["-c", _WITH_CONSTANTS, json.dumps(constants)]
    process = subprocess.Popen(
        program,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    try:
        url = _url(process)
        lines: list[str] = []
        # The server would block once the pipe is full.
        reader = threading.Thread(target=_read, args=(process, lines), daemon=True)
        reader.start()
        yield Server(process, url, lines, reader)
    finally:
        if process.poll() is None:
            # With all child processes: those of vLLM outlive a killed server.
            for pid in family(process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()


def _url(process: subprocess.Popen[str]) -> str:
    """Wait for the line with the URL."""
    assert process.stderr is not None
    began = time.monotonic()
    for line in process.stderr:
        if " is ready at " in line:
            return line.split(" is ready at ")[1].split()[0]
        assert time.monotonic() - began < START_SECONDS
    raise AssertionError("the server ended before it was ready")


def _read(process: subprocess.Popen[str], lines: list[str]) -> None:
    assert process.stderr is not None
    with process.stderr:
        lines.extend(process.stderr)


def family(pid: int) -> list[int]:
    """Pids of a process and all its descendants, parents first."""
    # Linux lists children by thread.
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
    except FileNotFoundError:
        return []  # It has ended meanwhile.
    children = [child for thread in threads for child in _children(thread)]
    return [pid, *(descendant for child in children for descendant in family(int(child)))]


def _children(thread: Path) -> list[str]:
    try:
        return (thread / "children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []  # It has ended meanwhile.


def get(url: str) -> httpx.Response:
    return httpx.get(url, timeout=30)
