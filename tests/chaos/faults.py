"""Injects faults: kills and freezes the engine; kills, stops and freezes Redis."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from connections import get
from rankd.engines.supervised import WINDOW
from support.redis_server import RedisServer
from support.servers import family

# Seconds to wait for an expected state.
_TIMEOUT = 120.0

# Seconds; longer than a worker may be silent before /readyz reports it.
_FREEZE_SECONDS = 7.0


async def wait_until(condition: Callable[[], bool], description: str) -> None:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < _TIMEOUT, f"never happened: {description}"
        await asyncio.sleep(0.02)


async def metric(url: str, name: str) -> float:
    """The sum of all series whose line in /metrics begins with `name`."""
    answer = await get(url, "/metrics")
    assert answer.status == 200, answer
    values = re.findall(rf"^{re.escape(name)}\S* (\S+)$", answer.body.decode(), re.MULTILINE)
    return sum(map(float, values))


def worker(pid: int) -> int | None:
    """Process id of a server's native worker."""
    for child in family(pid)[1:]:
        with suppress(OSError):  # The process may have ended.
            if b"native.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
    return None


def _rounds(seconds: float) -> int:
    # The delay before a restart grows with the number of crashes in five minutes.
    return max(1, int(seconds / WINDOW))


@dataclass
class FaultInjector:
    """Injects faults and counts them.

    Attributes:
        kills: of the engine.
        in_flight: kills of the engine while it computed requests.
        freezes: of the engine.
        outages: of Redis.
    """

    pid: int
    url: str
    redis: RedisServer | None
    kills: int = 0
    in_flight: int = 0
    freezes: int = 0
    outages: int = 0

    async def kill_under_load(self) -> int:
        """SIGKILL while the engine computes; returns the process id of the killed worker."""
        start = time.monotonic()
        while await metric(self.url, "rankd_engine_up") != 1 or not (
            await metric(self.url, "rankd_waiting_tokens")
        ):
            assert time.monotonic() - start < _TIMEOUT, "the engine never had work"
            await asyncio.sleep(0.02)
        self.in_flight += 1
        return await self._kill(None)

    async def kill_while_it_starts(self, last: int) -> None:
        """SIGKILL to the next worker at once, while it still loads."""
        await self._kill(last)

    async def _kill(self, last: int | None) -> int:
        await wait_until(lambda: worker(self.pid) not in (None, last), "a new worker")
        pid = worker(self.pid)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self.kills += 1
        return pid

    async def freeze(self) -> None:
        """SIGSTOP for longer than health checks tolerate, then SIGCONT."""
        await wait_until(lambda: worker(self.pid) is not None, "a worker")
        pid = worker(self.pid)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        self.freezes += 1
        await asyncio.sleep(_FREEZE_SECONDS)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    async def engine_faults(self, seconds: float) -> None:
        """Five kills and a freeze, repeated every five minutes."""
        rounds = _rounds(seconds)
        for _ in range(rounds):
            pause = seconds / rounds / 6
            await asyncio.sleep(pause / 2)
            last = await self.kill_under_load()
            await asyncio.sleep(pause)
            last = await self.kill_under_load()
            await self.kill_while_it_starts(last)
            await asyncio.sleep(pause)
            await self.freeze()
            await asyncio.sleep(pause)
            await self.kill_under_load()
            await asyncio.sleep(pause)
            await self.kill_under_load()

    async def redis_faults(self, seconds: float) -> None:
        """Kill, freeze, stop, kill: each for longer than rankd waits for Redis."""
        pause = seconds / _rounds(seconds) / 5
        away = min(8.0, pause / 2)
        for _ in range(_rounds(seconds)):
            for signum in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):
                await asyncio.sleep(pause - away)
                await self.lose_redis(signum, away)

    async def lose_redis(self, signum: int, away: float) -> None:
        """Kill, stop or freeze Redis for `away` seconds; a frozen one keeps its data."""
        if self.redis is None:
            return
        self.outages += 1
        self.redis.send(signum)
        await asyncio.sleep(away)
        if signum == signal.SIGSTOP:
            self.redis.send(signal.SIGCONT)
        else:
            self.redis.stop()
            await asyncio.to_thread(self.redis.start)

    async def all(self, seconds: float) -> None:
        await asyncio.gather(self.engine_faults(seconds), self.redis_faults(seconds))
