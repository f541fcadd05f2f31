"""Two minutes of clients of all kinds while the engine and Redis crash again and again.

Every valid request must get the scores that the server gave before, or a refusal that docs/api.md
documents. `make test-chaos` runs it and prints the counts.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest

from api_formats import OPENAI
from connections import Connection, get, message
from corpus import DOCUMENTS, INSTRUCTED_QUERIES, TOLERANCE, Baseline, ChaosRequest, Pair
from faults import FaultInjector, metric
from hostile import ALL_VALID, HALF_CLOSED, HOSTILE_KEYS, SLOW_WRITER, HostileWorkload
from invalid_requests import MAX_BODY_BYTES, READ_SECONDS
from judge import ANSWERED, FAULTS, LEFT, PART, REFUSED, RIGHT
from ledger import Ledger
from support.redis_server import REDIS_BINARY, RedisServer
from support.servers import Server, serving
from workload import (
    BASELINE_KEY,
    CACHE_KEY,
    KEY_REQUESTS_PER_MINUTE,
    KEYS,
    MAX_DOCUMENTS,
    MOSTLY_ANSWERED,
    REDIS_KEY,
)

# It ends by its own timeouts, which depend on --chaos-seconds.
pytestmark = [pytest.mark.chaos, pytest.mark.timeout(0)]

# Scores stay cached for seconds, so that the same pair is sometimes computed, sometimes cached
# and sometimes coalesced.
_CONSTANTS = {"rankd.ranking.cache.TTL_SECONDS": 2}

_ARGUMENTS = (
    *("--engine", "native", "--no-access-log"),
    *("--batch-tokens", "2048"),
    *("--max-documents", str(MAX_DOCUMENTS), "--max-body-bytes", str(MAX_BODY_BYTES)),
    *("--max-waiting-tokens", "100000", "--key-requests-per-minute", str(KEY_REQUESTS_PER_MINUTE)),
    *("--read-timeout-seconds", str(READ_SECONDS), "--engine-restarts", "1000"),
    *("--allowed-hosts", "chaos"),
    *(argument for key in (*KEYS, *HOSTILE_KEYS) for argument in ("--api-key", key)),
)

# Seconds of the same workload, with one crash each of engine and Redis, before memory is measured.
_WARM_UP = 30.0

# Allowed growth of memory and open files.
_MAX_GROWTH = 1.1

# Seconds besides the chaos, after which the test itself fails.
_TIMEOUT = 900.0


class ProcessSize(NamedTuple):
    """Size of the server process. The engine's process is replaced after each crash."""

    mib: float
    files: int


@dataclass
class Report:
    """Printed at the end, also if the test fails."""

    lines: list[str] = field(default_factory=list)

    def add(self, label: str, value: object) -> None:
        self.lines.append(f"  {label:<58} {value}")

    def title(self, text: str) -> None:
        self.lines += ["", text]


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Iterator[Report]:
    report = Report()
    yield report
    with capsys.disabled():
        sys.stdout.write("\n".join([*report.lines, "", ""]))


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


def test_no_answer_is_wrong_lost_or_hanging_while_engine_and_redis_crash(
    pytestconfig: pytest.Config, report: Report, redis: RedisServer | None
) -> None:
    seconds: float = pytestconfig.getoption("--chaos-seconds")
    seed: str = pytestconfig.getoption("--chaos-seed")
    shared = ("--cache-redis", redis.url, "--limits-redis", redis.url) if redis else ()
    with ExitStack() as stack:
        server = stack.enter_context(serving(*_ARGUMENTS, *shared, constants=_CONSTANTS))
        run = _run(server, redis, seconds, seed, report)
        asyncio.run(asyncio.wait_for(run, seconds + _TIMEOUT))
        status, errors = server.stop(signal.SIGTERM)
    report.add("exit status after SIGTERM", status)

    assert status == 0
    assert "Traceback" not in errors


async def _run(
    server: Server, redis: RedisServer | None, seconds: float, seed: str, report: Report
) -> None:
    url, pid = server.url, server.process.pid
    baseline = await _measure_baseline(url)
    _check_logits_differ(baseline)

    faults = FaultInjector(pid, url, redis)
    warm_up = Ledger()
    await HostileWorkload(url, baseline, warm_up, f"{seed}/warm").run(
        _one_fault_each(faults), _WARM_UP
    )
    before = await _idle_size(url, pid, redis)
    restarts = await metric(url, "rankd_engine_restarts_total")
    faults = FaultInjector(pid, url, redis)
    ledger = Ledger()
    start = time.monotonic()
    sizes: list[ProcessSize] = []
    sampling = asyncio.create_task(_sample_sizes(pid, sizes, seconds / 12))
    await HostileWorkload(url, baseline, ledger, seed).run(faults.all(seconds), seconds)
    sampling.cancel()
    lasted = time.monotonic() - start
    after = await _idle_size(url, pid, redis)
    restarts = await metric(url, "rankd_engine_restarts_total") - restarts

    _summarize(report, ledger, faults, lasted, before, after)
    report.add("memory during the chaos (MiB)", " ".join(f"{size.mib:.0f}" for size in sizes))
    report.add("engine restarts counted by the server", f"{restarts:.0f}")

    assert warm_up.faults == []
    assert ledger.faults == []
    assert ledger.unaccounted == warm_up.unaccounted == {}
    answered = ledger.of((*MOSTLY_ANSWERED, HALF_CLOSED, SLOW_WRITER))
    assert answered[RIGHT] > answered.total() / 2
    assert ledger.outcomes["never reads", REFUSED] > 0
    assert ledger.poisoned() <= faults.kills
    assert restarts >= faults.kills >= 5
    assert faults.in_flight >= 4
    assert after.mib <= before.mib * _MAX_GROWTH
    assert after.files <= before.files * _MAX_GROWTH
    assert await metric(url, 'rankd_requests_total{route="unmatched",status="500"}') == 0
    assert (await get(url, "/readyz")).status == 200
    if redis is not None:
        await _wait_until_redis_is_used(url, baseline, redis)
        assert await metric(url, "rankd_cache_failures_total") >= 1
        assert await metric(url, "rankd_limits_backend_errors_total") >= 1
    assert await _measure_baseline(url, cache=True) == pytest.approx(baseline, abs=TOLERANCE)
    await _check_cache_repeats_exactly(url)


async def _measure_baseline(url: str, *, cache: bool = False) -> Baseline:
    """The logit of every pair, one request at a time."""
    baseline: Baseline = {}
    size = 50
    async with Connection(url) as connection:
        for query, first in itertools.product(
            range(len(INSTRUCTED_QUERIES)), range(0, len(DOCUMENTS), size)
        ):
            pairs = tuple((query, index) for index in range(first, first + size))
            baseline |= await _logits(connection, pairs, BASELINE_KEY, cache=cache)
    return baseline


async def _logits(
    connection: Connection, pairs: tuple[Pair, ...], key: str, *, cache: bool
) -> Baseline:
    request = ChaosRequest(pairs, logits=True, extras={"cache": cache})
    answer = await connection.ask(message(OPENAI.path, OPENAI.body(request), key, "baseline"))
    assert answer.status == 200, answer
    return {pairs[row.index]: row.number for row in OPENAI.read(json.loads(answer.body))}


def _check_logits_differ(baseline: Baseline) -> None:
    """Swapped scores must be noticed, so hardly any two logits may be equal."""
    for query in range(len(INSTRUCTED_QUERIES)):
        logits = sorted(baseline[query, index] for index in range(len(DOCUMENTS)))
        equal = sum(b - a < 2 * TOLERANCE for a, b in itertools.pairwise(logits))
        assert equal < len(logits) / 10


async def _one_fault_each(faults: FaultInjector) -> None:
    await asyncio.sleep(_WARM_UP / 5)
    await faults.lose_redis(signal.SIGKILL, _WARM_UP / 5)
    await faults.kill_under_load()


async def _idle_size(url: str, pid: int, redis: RedisServer | None) -> ProcessSize:
    """The server's size once no request is waiting."""
    start = time.monotonic()
    while not await _is_idle(url):
        assert time.monotonic() - start < 300, "requests still wait after all clients have ended"
        await asyncio.sleep(0.1)
    sizes = []
    for _ in range(10):
        await asyncio.sleep(0.5)
        sizes.append(_size(pid))
    files = min(size.files for size in sizes)
    if redis:
        files -= _pooled(pid, redis.port)
    return ProcessSize(min(size.mib for size in sizes), files)


def _pooled(pid: int, port: int) -> int:
    """Sockets of the pools of connections to Redis, which keep as many as were ever busy.

    A socket that a killed Redis has reset is in no table of the kernel.
    """
    rows = [
        line.split()
        for table in ("tcp", "tcp6", "unix")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    to_redis = {row[9] for row in rows if len(row) > 9 and row[2].endswith(f":{port:04X}")}
    known = {row[9] if len(row) > 9 else row[6] for row in rows} - to_redis
    links = []
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # Closed meanwhile.
            links.append(os.readlink(file))
    inodes = re.findall(r"socket:\[(\d+)\]", " ".join(links))
    return sum(inode not in known for inode in inodes)


async def _sample_sizes(pid: int, sizes: list[ProcessSize], interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        sizes.append(_size(pid))


async def _is_idle(url: str) -> bool:
    names = ("rankd_waiting_requests", "rankd_waiting_tokens")
    waiting = [await metric(url, name) for name in names]
    return waiting == [0, 0] and await metric(url, "rankd_engine_up") == 1


def _size(pid: int) -> ProcessSize:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    [resident] = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    return ProcessSize(resident / 1024, len(list(Path(f"/proc/{pid}/fd").iterdir())))


async def _wait_until_redis_is_used(url: str, baseline: Baseline, redis: RedisServer) -> None:
    """Request new pairs until Redis holds scores again."""
    start = time.monotonic()
    async with Connection(url) as connection:
        for number in itertools.count():
            pairs = ((0, number % len(DOCUMENTS)),)
            assert await _logits(connection, pairs, REDIS_KEY, cache=True) == pytest.approx(
                {pair: baseline[pair] for pair in pairs}, abs=TOLERANCE
            )
            if await _key_count(redis):
                return
            assert time.monotonic() - start < 120, "nothing is written to Redis any more"
            await asyncio.sleep(0.6)


async def _key_count(redis: RedisServer) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", redis.port)
    writer.write(b"KEYS rankd:*\r\n")
    count = int((await reader.readline()).removeprefix(b"*"))
    writer.transport.abort()
    return count


async def _check_cache_repeats_exactly(url: str) -> None:
    pairs = tuple((3, index) for index in range(40))
    request = ChaosRequest(pairs, logits=True)
    data = message(OPENAI.path, OPENAI.body(request), CACHE_KEY, "again")
    async with Connection(url) as connection:
        for _ in range(60):  # An entry may expire between the two requests.
            first, second = await connection.ask(data), await connection.ask(data)
            if second.headers["x-rankd-cached"] == str(len(pairs)):
                results = [json.loads(answer.body)["results"] for answer in (first, second)]
                assert results[0] == results[1]
                return
    raise AssertionError("no request was answered from the cache alone")


def _summarize(
    report: Report,
    ledger: Ledger,
    faults: FaultInjector,
    lasted: float,
    before: ProcessSize,
    after: ProcessSize,
) -> None:
    report.title(f"chaos: {lasted:.0f} seconds")
    report.add(
        "engine killed (SIGKILL), of these while it computed", f"{faults.kills}, {faults.in_flight}"
    )
    report.add("engine stopped and continued", faults.freezes)
    report.add("Redis killed, stopped or hanging", faults.outages if faults.redis else "left out")
    others = [kind for kind in ledger.sent if kind not in ALL_VALID]
    for title, kinds, outcomes in (
        ("valid requests", ALL_VALID, (RIGHT, PART, REFUSED, *FAULTS)),
        ("other requests", others, (ANSWERED, REFUSED, LEFT, *FAULTS)),
    ):
        report.title(f"{title}: {sum(ledger.sent[kind] for kind in kinds):,}")
        counts = ledger.of(kinds)
        for outcome in outcomes:
            report.add(outcome, f"{counts[outcome]:,}")
    report.add("kinds of requests without exactly one outcome", len(ledger.unaccounted))
    report.title("by kind: sent, right, other outcomes")
    for kind, count in ledger.sent.items():
        reasons = {why: times for (key, why), times in ledger.reasons.items() if key == kind}
        others_text = "".join(f", {times:,} x {why}" for why, times in sorted(reasons.items()))
        report.add(kind, f"{count:,}, {ledger.outcomes[kind, RIGHT]:,}{others_text}")
    report.title("the server's process: before, after")
    report.add("resident memory (MiB)", f"{before.mib:.1f}, {after.mib:.1f}")
    report.add("open files", f"{before.files}, {after.files}")
    for fault in ledger.faults[:20]:
        report.lines.append(f"  ! {fault}")
