"""The worker as the server sees it: started, spoken to over pipes, mourned."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from dataclasses import asdict, dataclass

from rankd.engines.native import framing
from rankd.errors import BadModel, BadSettings, EngineDown, SetupError
from rankd.telemetry.logs import Format

_SETUP_ERRORS = {error.__name__: error for error in (BadModel, BadSettings, SetupError)}

# Fresh 25 to 50 MB outputs cost a fifth of the arithmetic in page faults; with these
# glibc keeps and reuses freed memory instead of handing it back to the system.
_MALLOC = "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592"


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What the worker is told at its start.

    Attributes:
        yes, no: ids of the two words whose logits are compared.
        threads: 0 takes all cores that this process may use.
        deterministic: compute each prompt as if it were alone.
        log_level, log_format: as the settings of that name.
    """

    folder: str
    weights: list[str]
    yes: int
    no: int
    device: str
    dtype: str
    threads: int
    deterministic: bool = False
    log_level: str = "info"
    log_format: Format = "auto"


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    device: str
    dtype: str
    arithmetic: str = ""


class WorkerProcess:
    """A running child process. `start` it, and `close` it whatever happens."""

    def __init__(self, process: Process) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._pinged: float | None = None

    @classmethod
    async def spawn(cls, job: WorkerConfig) -> WorkerProcess:
        command = (sys.executable, "-m", "rankd.engines.native.worker", json.dumps(asdict(job)))
        return cls(
            await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, env=_environment(job)
            )
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def hello(self, loaded: Callable[[int, int], None] = lambda *_: None) -> WorkerInfo:
        """Wait until the model is loaded.

        Args:
            loaded: is told of how many of how many layers are.

        Raises:
            SetupError: it cannot be; the worker's own sentence says why.
        """
        try:
            kind, body = await self._read()
            while kind == framing.LOADED:
                loaded(*json.loads(body))
                kind, body = await self._read()
        except EngineDown as problem:
            raise SetupError(f"{problem.message} before the model was loaded") from None
        said = json.loads(body)
        if "error" in said:
            raise _SETUP_ERRORS[said["error"]](said["message"])
        return WorkerInfo(**said)

    def send(self, body: bytes) -> None:
        """Hand over a batch without waiting; few are in flight, so nothing piles up."""
        self._stdin.write(framing.frame(framing.BATCH, body))

    def ping(self) -> None:
        """Ask for a sign of life, unless one is asked for already."""
        if self._pinged is None:
            self._pinged = time.monotonic()
            self._stdin.write(framing.frame(framing.PING, b""))

    @property
    def silence(self) -> float:
        """Seconds since a ping that is not answered."""
        return 0.0 if self._pinged is None else time.monotonic() - self._pinged

    async def receive(self) -> list[float | None]:
        """The logits of the oldest batch that was sent; None where the memory did not suffice.

        Raises:
            EngineDown: the process ended.
        """
        kind, body = await self._read()
        while kind == framing.PONG:
            self._pinged = None
            kind, body = await self._read()
        return framing.unpack_logits(body)

    def kill(self) -> None:
        if self.is_alive:
            self._process.kill()

    async def _read(self) -> tuple[bytes, bytes]:
        try:
            (length,) = framing.LENGTH.unpack(await self._stdout.readexactly(framing.LENGTH.size))
            content = await self._stdout.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise EngineDown(f"the native engine's process {await self._end()}") from None
        return content[:1], content[1:]

    async def _end(self) -> str:
        code = await self._process.wait()
        if code >= 0:
            return f"ended with exit code {code}"
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{hint}"

    async def close(self) -> None:
        """End the process now, whatever it is computing; harmless when it is gone."""
        self._stdin.close()
        try:
            # It exits by itself when its stdin ends.
            await asyncio.wait_for(self._process.wait(), timeout=2)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._stdout.read()


def _environment(job: WorkerConfig) -> dict[str, str]:
    environment = dict(os.environ)
    tunables = [environment.get("GLIBC_TUNABLES", ""), _MALLOC]
    environment["GLIBC_TUNABLES"] = ":".join(filter(None, tunables))
    # Threads that spin while they wait burn the cores that other processes need: beside
    # two busy ones, the same batch cost 6.3 CPU seconds spinning and 1.9 sleeping.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if job.threads:
        environment["OMP_NUM_THREADS"] = str(job.threads)
    if job.deterministic:
        # Else they may take fewer threads while the machine is busy, and round otherwise.
        environment |= {"OMP_DYNAMIC": "FALSE", "MKL_DYNAMIC": "FALSE"}
        # Its products may differ from start to start by where arrays lie in memory:
        # Intel's guide to conditional numerical reproducibility.
        environment.setdefault("MKL_CBWR", "AUTO")
    return environment
