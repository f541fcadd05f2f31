"""Goodput and refusals at four times the server's peak load.

First measures the peak: clients that always have one request in flight, enough to fill the engine.
Then alternates every ten seconds between the peak load and requests at four times that rate, which
are sent without waiting for earlier ones, on connections that are already open. The queue is
limited to a few seconds of the peak.

    python bench/overload.py [MODEL] [--seconds 60] [--times 4] [--queue-seconds 2]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import signal
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import orjson

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "bench"))

from server import DOCUMENTS, bodies  # noqa: E402
from support.servers import Server, serving  # noqa: E402

PEAK_CLIENTS = 4
TURN = 10.0  # Seconds.
_NUMBERS = itertools.count()
MIN_GOODPUT, MAX_REFUSAL_SECONDS = 0.9, 0.050


@dataclass
class Phase:
    """The outcomes of one phase's requests.

    Attributes:
        admitted, refused: latency of each request, in seconds.
        others: number of responses by other status.
        tokens: in all responses.
        skipped: requests not sent, because no connection was free.
    """

    admitted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    retry_after: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def add(self, other: Phase) -> None:
        self.admitted += other.admitted
        self.refused += other.refused
        self.others += other.others
        self.retry_after += other.retry_after
        self.skipped += other.skipped
        self.seconds += other.seconds

    @property
    def rate(self) -> float:
        """Requests answered per second."""
        return len(self.admitted) / max(self.seconds, 0.001)


class Connection:
    """A keep-alive connection without an HTTP client, which would use more CPU than the server."""

    def __init__(self, url: str, phase: Phase) -> None:
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)
        self._phase = phase

    async def open(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def ask(self, body: bytes) -> None:
        # A new query each time: the cache is on, as by default, and never hits.
        body = body.replace(b'{"query":"', b'{"query":"%d ' % next(_NUMBERS), 1)
        began = time.perf_counter()
        self._writer.write(
            b"POST /v1/rerank HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        self._writer.write(body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        answer = await self._reader.readexactly(length)
        took = time.perf_counter() - began
        status = head.split(b" ", 2)[1].decode()
        if status == "200":
            self._phase.admitted.append(took)
            self._phase.tokens += orjson.loads(answer)["usage"]["total_tokens"]
        elif status == "429":
            self._phase.refused.append(took)
            self._phase.retry_after[int(head.split(b"retry-after: ")[1].split(b"\r\n")[0])] += 1
        else:
            self._phase.others[status] += 1

    def close(self) -> None:
        self._writer.close()


async def peak(url: str, requests: list[bytes], seconds: float) -> Phase:
    """Send requests from clients that wait for each response."""
    phase = Phase()
    began = time.perf_counter()

    async def client(number: int) -> None:
        connection = await Connection(url, phase).open()
        index = number * 17
        while time.perf_counter() < began + seconds:
            await connection.ask(requests[index % len(requests)])
            index += 1
        connection.close()

    await asyncio.gather(*map(client, range(PEAK_CLIENTS)))
    phase.seconds = time.perf_counter() - began
    return phase


async def flood(
    url: str, requests: list[bytes], rate: float, seconds: float, connections: int
) -> Phase:
    """Send requests at a constant rate, each on a free connection."""
    phase = Phase()
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait(await Connection(url, phase).open())
    running: set[asyncio.Task[None]] = set()
    began = time.perf_counter()

    async def one(connection: Connection, body: bytes) -> None:
        await connection.ask(body)
        free.put_nowait(connection)

    number = 0
    while (now := time.perf_counter() - began) < seconds:
        while number < now * rate:
            number += 1
            if free.empty():
                phase.skipped += 1  # No connection is free.
                continue
            task = asyncio.create_task(one(free.get_nowait(), requests[number % len(requests)]))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(0.002)
    # Admitted requests are still running: they count, and so does their time.
    if running:
        await asyncio.wait(running)
    phase.seconds = time.perf_counter() - began
    while not free.empty():
        free.get_nowait().close()
    return phase


def arguments(options: argparse.Namespace) -> list[str]:
    flags = ["--engine", options.engine, "--no-access-log", "--threads", "1"]
    return [options.model, *flags]


def find_peak(options: argparse.Namespace, requests: list[bytes]) -> Phase:
    with serving(*arguments(options)) as server:
        asyncio.run(peak(server.url, requests, 2))
        phase = asyncio.run(peak(server.url, requests, options.peak_seconds))
        server.stop(signal.SIGTERM)
    return phase


def overload(
    options: argparse.Namespace, server: Server, requests: list[bytes], at: Phase
) -> tuple[Phase, Phase]:
    """Alternate between the peak load and the overload."""
    calm, flooded = Phase(), Phase()
    connections = int(4 * at.rate * options.queue_seconds) + 64
    for _ in range(max(1, round(options.seconds / TURN))):
        calm.add(asyncio.run(peak(server.url, requests, TURN)))
        rate = at.rate * options.times
        flooded.add(asyncio.run(flood(server.url, requests, rate, TURN, connections)))
    return calm, flooded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="builtin")
    parser.add_argument("--engine", default="native", choices=["native", "fake"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--peak-seconds", type=float, default=15.0)
    parser.add_argument("--times", type=float, default=4.0, help="load, as a multiple of the peak")
    parser.add_argument(
        "--queue-seconds",
        type=float,
        default=2.0,
        help="limit of the queue, in seconds of the peak",
    )
    options = parser.parse_args()
    requests = bodies(400)
    at = find_peak(options, requests)
    # At least as long as the clients of the peak need, so that none is refused.
    minimum = 1.5 * PEAK_CLIENTS * at.tokens / len(at.admitted)
    queue = int(max(at.tokens / at.seconds * options.queue_seconds, minimum))
    print(f"{options.model}, {options.engine} engine, {DOCUMENTS} documents of about 90 tokens")
    print(f"peak {at.rate:.1f} requests/s, {at.tokens / at.seconds:,.0f} tokens/s;")
    print(f"offered {options.times:g} times that for {options.seconds:g} s;", end=" ")
    print(f"--max-waiting-tokens {queue:,}\n")
    with serving(*arguments(options), "--max-waiting-tokens", str(queue)) as server:
        calm, flooded = overload(options, server, requests, at)
        server.stop(signal.SIGTERM)
    goodput, refusal = flooded.rate / calm.rate, statistics.median(flooded.refused or [0.0])
    ordered = sorted(flooded.admitted)
    p99 = ordered[int(len(ordered) * 0.99)]
    print("| | |\n|---|---|")
    print(f"| peak, in turns with the overload | {calm.rate:.1f} requests/s |")
    print(f"| answered under overload | {flooded.rate:.1f} requests/s |")
    print(f"| **goodput, of the peak** | {goodput:.0%} |")
    print(f"| refused | {len(flooded.refused):,} of {len(flooded.refused) + len(ordered):,} |")
    print(f"| **refusal, median** | {refusal * 1000:.1f} ms |")
    print(f"| refusal, p99 | {_percentile(flooded.refused, 0.99) * 1000:.1f} ms |")
    print(f"| **admitted, median and p99** | {statistics.median(ordered):.2f} s, {p99:.2f} s |")
    print(f"| Retry-After | {dict(sorted(flooded.retry_after.items()))} |")
    print(f"| other responses | {dict(flooded.others)} |")
    print(f"| not sent, no connection free | {flooded.skipped} |")
    if goodput < MIN_GOODPUT or refusal > MAX_REFUSAL_SECONDS or flooded.others:
        sys.exit("below the goal")


def _percentile(seconds: list[float], share: float) -> float:
    ordered = sorted(seconds) or [0.0]
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


if __name__ == "__main__":
    main()
