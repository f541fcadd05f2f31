"""Server side of the worker process: start, frames over pipes, exit."""

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

# Entries of torch's and of oneDNN's cache of generated code, 1,024 each by default. The code of a
# product is for one number of rows: 300 batch sizes grew a process by 600 to 800 MiB, and with
# these limits by 100 to 330, at the same CPU time (`bench/row_counts.py`).
ONEDNN_CACHES = {"LRU_CACHE_CAPACITY": "128", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128"}

# glibc keeps freed memory instead of returning it to the system. Otherwise page faults of
# fresh outputs (25 to 50 MB each) cost a fifth of the time of the arithmetic.
_MALLOC_TUNABLES = "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592"


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Configuration of the worker, passed as JSON on its command line.

    Attributes:
        folder: path of the model, which holds `config.json`.
        weights: paths of the safetensors files.
        yes, no, scale: fields of `AnswerTokenIds`.
        device, dtype: as the settings of that name, `auto` included.
        threads: CPU threads; 0 uses all cores that the process may use.
        deterministic: compute each prompt in a forward pass of its own.
        log_level, log_format: as the settings of that name.
    """

    folder: str
    weights: list[str]
    yes: int
    no: int | None
    device: str
    dtype: str
    threads: int
    scale: float = 1.0
    deterministic: bool = False
    log_level: str = "info"
    log_format: Format = "auto"


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What the worker reports once its model is loaded; fields as in `EngineInfo`."""

    device: str
    dtype: str
    dtype_reason: str = ""
    arithmetic: str = ""


class WorkerProcess:
    """A running worker process: `spawn`, `wait_until_ready`, `send` and `receive`, `close`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._pinged: float | None = None

    @classmethod
    async def spawn(cls, config: WorkerConfig) -> WorkerProcess:
        """Start the process; the caller must `close` it."""
        command = (sys.executable, "-m", "rankd.engines.native.worker", json.dumps(asdict(config)))
        return cls(
            await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, env=_environment(config)
            )
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    async def wait_until_ready(
        self, on_layer: Callable[[int, int], None] = lambda *_: None
    ) -> WorkerInfo:
        """Wait until the model is loaded.

        Args:
            on_layer: called after each layer with the layers loaded so far and their total.

        Raises:
            SetupError: the worker ended or could not load the model; has its message.
        """
        try:
            kind, body = await self._read_frame()
            while kind == framing.LOADED:
                on_layer(*json.loads(body))
                kind, body = await self._read_frame()
        except EngineDown as problem:
            raise SetupError(f"{problem.message} before the model was loaded") from None
        hello = json.loads(body)
        if "error" in hello:
            raise _SETUP_ERRORS[hello["error"]](hello["message"])
        return WorkerInfo(**hello)

    def send(self, body: bytes) -> None:
        """Send a packed batch without waiting; the caller limits the batches in flight."""
        self._stdin.write(framing.frame(framing.BATCH, body))

    def ping(self) -> None:
        """Send a ping, unless one is unanswered."""
        if self._pinged is None:
            self._pinged = time.monotonic()
            self._stdin.write(framing.frame(framing.PING, b""))

    @property
    def silence(self) -> float:
        """Seconds since the unanswered ping was sent; 0 when there is none."""
        return 0.0 if self._pinged is None else time.monotonic() - self._pinged

    async def receive(self) -> list[float | None]:
        """Wait for the logits of the oldest batch in flight.

        Returns:
            One logit for each prompt; None for a prompt that does not fit in memory.

        Raises:
            EngineDown: the process ended.
        """
        kind, body = await self._read_frame()
        while kind == framing.PONG:
            self._pinged = None
            kind, body = await self._read_frame()
        return framing.unpack_logits(body)

    def kill(self) -> None:
        if self.is_alive:
            self._process.kill()

    async def _read_frame(self) -> tuple[bytes, bytes]:
        """Kind and body of the next frame."""
        try:
            (length,) = framing.LENGTH.unpack(await self._stdout.readexactly(framing.LENGTH.size))
            content = await self._stdout.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise EngineDown(f"the native engine's process {await self._exit_reason()}") from None
        return content[:1], content[1:]

    async def _exit_reason(self) -> str:
        code = await self._process.wait()
        if code >= 0:
            return f"ended with exit code {code}"
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"was killed by {signal.Signals(-code).name}{hint}"

    async def close(self) -> None:
        """End the process now, even while it computes; does nothing when it has ended."""
        self._stdin.close()
        try:
            # The worker exits when its stdin ends.
            await asyncio.wait_for(self._process.wait(), timeout=2)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._stdout.read()


def _environment(config: WorkerConfig) -> dict[str, str]:
    environment = dict(os.environ)
    tunables = [environment.get("GLIBC_TUNABLES", ""), _MALLOC_TUNABLES]
    environment["GLIBC_TUNABLES"] = ":".join(filter(None, tunables))
    # OpenMP threads sleep while they wait. By default they spin: beside two busy processes,
    # the same batch cost 6.3 CPU seconds spinning and 1.9 sleeping.
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    environment = ONEDNN_CACHES | environment
    if config.threads:
        environment["OMP_NUM_THREADS"] = str(config.threads)
    if config.deterministic:
        # Otherwise both may use fewer threads on a busy machine, which changes the rounding.
        environment |= {"OMP_DYNAMIC": "FALSE", "MKL_DYNAMIC": "FALSE"}
        # Otherwise MKL's products depend on the alignment of arrays, which differs between
        # starts (Intel's guide to conditional numerical reproducibility).
        environment.setdefault("MKL_CBWR", "AUTO")
    return environment
