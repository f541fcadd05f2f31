"""Two minutes of everything at once: clients of all kinds, deaths of the engine and of Redis.

Whoever asks as one should is answered with the scores that a calm server gives, or refused
with a status that docs/api.md knows. `make test-chaos` runs it and prints what it counted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from corpus import DOCUMENTS, QUESTIONS, TOLERANCE, Calm, Pair, Wanted
from crowd import (
    CACHE_KEY,
    CALM_KEY,
    KEY_REQUESTS_PER_MINUTE,
    KEYS,
    MAX_DOCUMENTS,
    PATIENT,
    REDIS_KEY,
    WELL_FORMED,
    Crowd,
)
from garbage import MAX_BODY_BYTES, READ_SECONDS
from judge import ANSWERED, FAULTS, LEFT, PART, REFUSED, RIGHT
from ledger import Ledger
from lines import Line, get, message
from support.redis_server import REDIS_BINARY, RedisServer
from support.servers import Server, serving
from tongues import OPENAI
from trouble import Trouble, metric

pytestmark = pytest.mark.chaos

# Pairs live shortly in the cache, so that the same one is computed, found and shared by turns.
_CONSTANTS = {"rankd.ranking.cache.TTL_SECONDS": 2}

_ARGUMENTS = (
    *("--engine", "native", "--no-access-log"),
    *("--batch-tokens", "2048"),
    *("--max-documents", str(MAX_DOCUMENTS), "--max-body-bytes", str(MAX_BODY_BYTES)),
    *("--max-waiting-tokens", "100000", "--key-requests-per-minute", str(KEY_REQUESTS_PER_MINUTE)),
    *("--read-timeout-seconds", str(READ_SECONDS), "--engine-restarts", "1000"),
    *(argument for key in KEYS for argument in ("--api-key", key)),
)

# Seconds of the same crowd, and one death of each, before memory is measured first.
_WARM_UP = 30.0

_GROWTH = 1.1

# Seconds beside the chaos, on the busiest machine: the test itself must not hang either.
_PATIENCE = 900.0


class Size(NamedTuple):
    """Of the server's own process; the engine's is a new one after each death."""

    mib: float
    files: int


@dataclass
class Report:
    """What is printed at the end, as far as it came."""

    lines: list[str] = field(default_factory=list)

    def add(self, what: str, value: object) -> None:
        self.lines.append(f"  {what:<58} {value}")

    def title(self, text: str) -> None:
        self.lines += ["", text]


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Iterator[Report]:
    made = Report()
    yield made
    with capsys.disabled():
        sys.stdout.write("\n".join([*made.lines, "", ""]))


@pytest.fixture
def redis(pytestconfig: pytest.Config, tmp_path: Path) -> Iterator[RedisServer | None]:
    if pytestconfig.getoption("--chaos-without-redis"):
        yield None
        return
    if REDIS_BINARY is None:
        pytest.fail(
            "redis-server is not installed: apt-get install redis-server, "
            "or leave Redis out with --chaos-without-redis"
        )
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.stop()


def test_nothing_is_wrong_lost_or_hanging_while_everything_goes_wrong(
    pytestconfig: pytest.Config, report: Report, redis: RedisServer | None
) -> None:
    seconds: float = pytestconfig.getoption("--chaos-seconds")
    seed: str = pytestconfig.getoption("--chaos-seed")
    shared = ("--cache-redis", redis.url, "--limits-redis", redis.url) if redis else ()
    with ExitStack() as stack:
        server = stack.enter_context(serving(*_ARGUMENTS, *shared, constants=_CONSTANTS))
        play = _play(server, redis, seconds, seed, report)
        asyncio.run(asyncio.wait_for(play, seconds + _PATIENCE))
        status, said = server.stop(signal.SIGTERM)
    report.add("exit status after SIGTERM", status)

    assert status == 0
    assert "Traceback" not in said


async def _play(
    server: Server, redis: RedisServer | None, seconds: float, seed: str, report: Report
) -> None:
    url, pid = server.url, server.process.pid
    calm = await _calm(url)
    _shows_mistakes(calm)

    trouble = Trouble(pid, url, redis)
    warming = Ledger()
    await Crowd(url, calm, warming, f"{seed}/warm").run(_one_of_each(trouble), _WARM_UP)
    before = await _settled(url, pid)
    restarts = await metric(url, "rankd_engine_restarts_total")
    trouble = Trouble(pid, url, redis)
    ledger = Ledger()
    began = time.monotonic()
    sizes: list[Size] = []
    watching = asyncio.create_task(_watch(pid, sizes, seconds / 12))
    await Crowd(url, calm, ledger, seed).run(trouble.all(seconds), seconds)
    watching.cancel()
    lasted = time.monotonic() - began
    after = await _settled(url, pid)
    restarts = await metric(url, "rankd_engine_restarts_total") - restarts

    _tell(report, ledger, trouble, lasted, before, after)
    report.add("memory meanwhile", " ".join(f"{size.mib:.0f}" for size in sizes))
    report.add("engine restarts that the server counted", f"{restarts:.0f}")

    assert warming.complaints == []
    assert ledger.complaints == []
    assert ledger.unaccounted == warming.unaccounted == {}
    assert ledger.of(PATIENT)[RIGHT] > ledger.of(PATIENT).total() / 2
    assert ledger.poisoned() <= trouble.kills
    assert restarts >= trouble.kills >= 5
    assert trouble.in_flight >= 4
    assert after.mib <= before.mib * _GROWTH
    assert after.files <= before.files * _GROWTH
    assert await metric(url, 'rankd_requests_total{route="unmatched",status="500"}') == 0
    assert (await get(url, "/readyz")).status == 200
    if redis is not None:
        await _is_used_again(url, calm, redis)
        assert await metric(url, "rankd_cache_failures_total") >= 1
        assert await metric(url, "rankd_limits_backend_errors_total") >= 1
    assert await _calm(url, cache=True) == pytest.approx(calm, abs=TOLERANCE)
    await _cache_repeats_exactly(url)


async def _calm(url: str, *, cache: bool = False) -> Calm:
    """The logit of every pair, asked one request after the other."""
    calm: Calm = {}
    size = 50
    async with Line(url) as line:
        for question, first in itertools.product(
            range(len(QUESTIONS)), range(0, len(DOCUMENTS), size)
        ):
            pairs = tuple((question, place) for place in range(first, first + size))
            calm |= await _logits(line, pairs, CALM_KEY, cache=cache)
    return calm


async def _logits(line: Line, pairs: tuple[Pair, ...], key: str, *, cache: bool) -> Calm:
    ask = Wanted(pairs, logits=True, extras={"cache": cache})
    answer = await line.ask(message(OPENAI.path, OPENAI.body(ask), key, "calm"))
    assert answer.status == 200, answer
    return {pairs[one.index]: one.number for one in OPENAI.read(json.loads(answer.body))}


def _shows_mistakes(calm: Calm) -> None:
    """Scores of two documents that were swapped would be noticed: hardly any two are alike."""
    for question in range(len(QUESTIONS)):
        logits = sorted(calm[question, place] for place in range(len(DOCUMENTS)))
        alike = sum(b - a < 2 * TOLERANCE for a, b in itertools.pairwise(logits))
        assert alike < len(logits) / 10


async def _one_of_each(trouble: Trouble) -> None:
    await asyncio.sleep(_WARM_UP / 5)
    await trouble.lose_redis(signal.SIGKILL, _WARM_UP / 5)
    await trouble.kill_under_load()


async def _settled(url: str, pid: int) -> Size:
    """The server's size once nothing is left to do."""
    began = time.monotonic()
    while not await _is_quiet(url):
        assert time.monotonic() - began < 120, "requests wait that nobody sent"
        await asyncio.sleep(0.1)
    sizes = []
    for _ in range(10):
        await asyncio.sleep(0.5)
        sizes.append(_size(pid))
    return Size(min(size.mib for size in sizes), min(size.files for size in sizes))


async def _watch(pid: int, sizes: list[Size], every: float) -> None:
    while True:
        await asyncio.sleep(every)
        sizes.append(_size(pid))


async def _is_quiet(url: str) -> bool:
    names = ("rankd_waiting_requests", "rankd_waiting_tokens")
    waiting = [await metric(url, name) for name in names]
    return waiting == [0, 0] and await metric(url, "rankd_engine_up") == 1


def _size(pid: int) -> Size:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [resident] = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    return Size(resident / 1024, len(list(Path(f"/proc/{pid}/fd").iterdir())))


async def _is_used_again(url: str, calm: Calm, redis: RedisServer) -> None:
    """The Redis that came back holds scores again."""
    began = time.monotonic()
    async with Line(url) as line:
        for place in itertools.count():
            pairs = ((0, place % len(DOCUMENTS)),)
            assert await _logits(line, pairs, REDIS_KEY, cache=True) == pytest.approx(
                {pair: calm[pair] for pair in pairs}, abs=TOLERANCE
            )
            if await _keys_in(redis):
                return
            assert time.monotonic() - began < 60, "nothing is written to Redis any more"
            await asyncio.sleep(0.6)


async def _keys_in(redis: RedisServer) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
    writer.write(b"KEYS rankd:*\r\n")
    count = int((await reader.readline()).removeprefix(b"*"))
    writer.transport.abort()
    return count


async def _cache_repeats_exactly(url: str) -> None:
    pairs = tuple((3, place) for place in range(40))
    ask = Wanted(pairs, logits=True)
    data = message(OPENAI.path, OPENAI.body(ask), CACHE_KEY, "again")
    async with Line(url) as line:
        for _ in range(60):  # Scores are kept for so short that one may end in between.
            first, second = await line.ask(data), await line.ask(data)
            if second.headers["x-rankd-cached"] == str(len(pairs)):
                results = [json.loads(one.body)["results"] for one in (first, second)]
                assert results[0] == results[1]
                return
    raise AssertionError("the cache never held a whole request")


def _tell(
    report: Report, ledger: Ledger, trouble: Trouble, lasted: float, before: Size, after: Size
) -> None:
    report.title(f"chaos: {lasted:.0f} seconds")
    report.add("engine killed (SIGKILL), of these while it computed", _of(trouble))
    report.add("engine stopped and continued", trouble.freezes)
    report.add("Redis killed, stopped or hanging", trouble.outages if trouble.redis else "left out")
    others = [kind for kind in ledger.sent if kind not in WELL_FORMED]
    for title, kinds, endings in (
        ("well-formed requests", WELL_FORMED, (RIGHT, PART, REFUSED, *FAULTS)),
        ("everything else", others, (ANSWERED, REFUSED, LEFT, *FAULTS)),
    ):
        report.title(f"{title}: {sum(ledger.sent[kind] for kind in kinds):,}")
        counts = ledger.of(kinds)
        for ending in endings:
            report.add(ending, f"{counts[ending]:,}")
    report.add("requests of all kinds that did not end exactly once", len(ledger.unaccounted))
    report.title("by kind: sent, right, and why not")
    for kind, count in ledger.sent.items():
        reasons = {why: times for (one, why), times in ledger.reasons.items() if one == kind}
        why_not = "".join(f", {times:,} x {why}" for why, times in sorted(reasons.items()))
        report.add(kind, f"{count:,}, {ledger.endings[kind, RIGHT]:,}{why_not}")
    report.title("the server's process: before, after")
    report.add("resident memory (MiB)", f"{before.mib:.1f}, {after.mib:.1f}")
    report.add("open files", f"{before.files}, {after.files}")
    for complaint in ledger.complaints[:20]:
        report.lines.append(f"  ! {complaint}")


def _of(trouble: Trouble) -> str:
    return f"{trouble.kills}, {trouble.in_flight}"
