"""What goes wrong: the engine is killed and stopped, Redis is killed, stopped, and hangs."""

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

from lines import get
from rankd.engines.supervised import WINDOW
from support.redis_server import RedisServer
from support.servers import family

# Seconds until a state that must come is given up.
_PATIENCE = 120.0

# Longer than a native worker may be silent before probes are told.
_SILENT = 7.0


async def until(happens: Callable[[], bool], what: str) -> None:
    began = time.monotonic()
    while not happens():
        assert time.monotonic() - began < _PATIENCE, f"{what} did not happen"
        await asyncio.sleep(0.02)


async def metric(url: str, name: str) -> float:
    """The sum of all series of a metric whose line begins like that."""
    answer = await get(url, "/metrics")
    assert answer.status == 200, answer
    found = re.findall(rf"^{re.escape(name)}\S* (\S+)$", answer.body.decode(), re.MULTILINE)
    return sum(map(float, found))


def worker(pid: int) -> int | None:
    """The native engine's process of a server."""
    for one in family(pid)[1:]:
        with suppress(OSError):  # It ended meanwhile.
            if b"native.worker" in Path(f"/proc/{one}/cmdline").read_bytes():
                return one
    return None


def _rounds(seconds: float) -> int:
    # A server starts its engine the later again, the more deaths there were in five minutes.
    return max(1, int(seconds / WINDOW))


@dataclass
class Trouble:
    """Makes it, and counts what it made.

    Attributes:
        kills: of the engine.
        in_flight: of these, while requests were being computed.
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
        """SIGKILL while the engine computes; returns the pid that was."""
        began = time.monotonic()
        while await metric(self.url, "rankd_engine_up") != 1 or not (
            await metric(self.url, "rankd_waiting_tokens")
        ):
            assert time.monotonic() - began < _PATIENCE, "the engine never had anything to do"
            await asyncio.sleep(0.02)
        self.in_flight += 1
        return await self._kill(None)

    async def kill_while_it_starts(self, last: int) -> None:
        """SIGKILL of the next one as soon as it is there: it is still loading."""
        await self._kill(last)

    async def _kill(self, last: int | None) -> int:
        await until(lambda: worker(self.pid) not in (None, last), "a new worker")
        pid = worker(self.pid)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        self.kills += 1
        return pid

    async def freeze(self) -> None:
        """SIGSTOP for longer than probes tolerate, SIGCONT."""
        await until(lambda: worker(self.pid) is not None, "a worker")
        pid = worker(self.pid)
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        self.freezes += 1
        await asyncio.sleep(_SILENT)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    async def of_the_engine(self, seconds: float) -> None:
        """Five kills and a freeze, again every five minutes."""
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

    async def of_redis(self, seconds: float) -> None:
        """Killed, hanging, stopped softly, killed: each for longer than it is waited for."""
        pause = seconds / _rounds(seconds) / 5
        away = min(8.0, pause / 2)
        for _ in range(_rounds(seconds)):
            for signum in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGKILL):
                await asyncio.sleep(pause - away)
                await self.lose_redis(signum, away)

    async def lose_redis(self, signum: int, away: float) -> None:
        """For so many seconds; a hanging one has then what it had."""
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
        await asyncio.gather(self.of_the_engine(seconds), self.of_redis(seconds))
