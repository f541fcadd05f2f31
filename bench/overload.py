"""Four times what the server can do: how much of its peak it still does, and how it refuses.

First the peak: clients that always have one request on their way, as many as fill the
engine. Then, in turns of ten seconds because machines are seldom ours alone, the same again
and requests that arrive at four times that rate, whatever becomes of those before, on
connections that are all open already. The queue is limited to some seconds of the peak.

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
LEAST_GOODPUT, SLOWEST_REFUSAL = 0.9, 0.050


@dataclass
class Seen:
    """What became of the requests of one phase.

    Attributes:
        admitted, refused: seconds of each, by how it ended.
        tokens: of the answers.
    """

    admitted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    retry_after: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    skipped: int = 0
    seconds: float = 0.0

    def add(self, other: Seen) -> None:
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
    """A keep-alive connection, written by hand: a full client would cost more than the server."""

    def __init__(self, url: str, seen: Seen) -> None:
        self._host, _, port = url.removeprefix("http://").partition(":")
        self._port = int(port)
        self._seen = seen

    async def open(self) -> Connection:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def ask(self, body: bytes) -> None:
        # Another question each time: the cache looks, as it does by default, and never finds.
        body = body.replace(b'{"query":"', b'{"query":"%d ' % next(_NUMBERS), 1)
        began = time.perf_counter()
        self._writer.write(
            b"POST /v1/rerank HTTP/1.1\r\nhost: bench\r\ncontent-length: %d\r\n\r\n" % len(body)
        )
        self._writer.write(body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        answer = await self._reader.readexactly(length)
        took = time.perf_counter() - began
        status = head.split(b" ", 2)[1].decode()
        if status == "200":
            self._seen.admitted.append(took)
            self._seen.tokens += orjson.loads(answer)["usage"]["total_tokens"]
        elif status == "429":
            self._seen.refused.append(took)
            self._seen.retry_after[int(head.split(b"retry-after: ")[1].split(b"\r\n")[0])] += 1
        else:
            self._seen.others[status] += 1

    def close(self) -> None:
        self._writer.close()


async def peak(url: str, requests: list[bytes], seconds: float) -> Seen:
    """Clients that wait for each answer."""
    seen = Seen()
    began = time.perf_counter()

    async def client(number: int) -> None:
        connection = await Connection(url, seen).open()
        place = number * 17
        while time.perf_counter() < began + seconds:
            await connection.ask(requests[place % len(requests)])
            place += 1
        connection.close()

    await asyncio.gather(*map(client, range(PEAK_CLIENTS)))
    seen.seconds = time.perf_counter() - began
    return seen


async def flood(url: str, requests: list[bytes], rate: float, seconds: float, most: int) -> Seen:
    """Requests that come at a rate, on whichever of `most` connections is free."""
    seen = Seen()
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(most):
        free.put_nowait(await Connection(url, seen).open())
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
                seen.skipped += 1  # Every connection has one on its way.
                continue
            task = asyncio.create_task(one(free.get_nowait(), requests[number % len(requests)]))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.sleep(0.002)
    # What was admitted is half done by now: it counts, and so does the time that it still takes.
    if running:
        await asyncio.wait(running)
    seen.seconds = time.perf_counter() - began
    while not free.empty():
        free.get_nowait().close()
    return seen


def arguments(options: argparse.Namespace) -> list[str]:
    flags = ["--engine", options.engine, "--no-access-log", "--threads", "1"]
    return [options.model, *flags]


def find_peak(options: argparse.Namespace, requests: list[bytes]) -> Seen:
    with serving(*arguments(options)) as server:
        asyncio.run(peak(server.url, requests, 2))
        found = asyncio.run(peak(server.url, requests, options.peak_seconds))
        server.stop(signal.SIGTERM)
    return found


def overload(
    options: argparse.Namespace, server: Server, requests: list[bytes], at: Seen
) -> tuple[Seen, Seen]:
    """The peak and the overload, in turns."""
    calm, seen = Seen(), Seen()
    most = int(4 * at.rate * options.queue_seconds) + 64
    for _ in range(max(1, round(options.seconds / TURN))):
        calm.add(asyncio.run(peak(server.url, requests, TURN)))
        rate = at.rate * options.times
        seen.add(asyncio.run(flood(server.url, requests, rate, TURN, most)))
    return calm, seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="builtin")
    parser.add_argument("--engine", default="native", choices=["native", "fake"])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--peak-seconds", type=float, default=15.0)
    parser.add_argument("--times", type=float, default=4.0, help="the peak, offered")
    parser.add_argument("--queue-seconds", type=float, default=2.0, help="of the peak may wait")
    options = parser.parse_args()
    requests = bodies(400)
    at = find_peak(options, requests)
    # The clients of the peak must fit, or they would be refused, too.
    least = 1.5 * PEAK_CLIENTS * at.tokens / len(at.admitted)
    queue = int(max(at.tokens / at.seconds * options.queue_seconds, least))
    print(f"{options.model}, {options.engine} engine, {DOCUMENTS} documents of about 90 tokens")
    print(f"peak {at.rate:.1f} requests/s, {at.tokens / at.seconds:,.0f} tokens/s;")
    print(f"offered {options.times:g} times that for {options.seconds:g} s;", end=" ")
    print(f"--max-waiting-tokens {queue:,}\n")
    with serving(*arguments(options), "--max-waiting-tokens", str(queue)) as server:
        calm, seen = overload(options, server, requests, at)
        server.stop(signal.SIGTERM)
    goodput, refusal = seen.rate / calm.rate, statistics.median(seen.refused or [0.0])
    ordered = sorted(seen.admitted)
    late = ordered[int(len(ordered) * 0.99)]
    print("| | |\n|---|---|")
    print(f"| peak, in turns with the overload | {calm.rate:.1f} requests/s |")
    print(f"| answered under overload | {seen.rate:.1f} requests/s |")
    print(f"| **goodput, of the peak** | {goodput:.0%} |")
    print(f"| refused | {len(seen.refused):,} of {len(seen.refused) + len(ordered):,} |")
    print(f"| **refusal, median** | {refusal * 1000:.1f} ms |")
    print(f"| refusal, p99 | {_percentile(seen.refused, 0.99) * 1000:.1f} ms |")
    print(f"| **admitted, median and p99** | {statistics.median(ordered):.2f} s, {late:.2f} s |")
    print(f"| Retry-After | {dict(sorted(seen.retry_after.items()))} |")
    print(f"| other answers | {dict(seen.others)} |")
    print(f"| not sent, no connection free | {seen.skipped} |")
    if goodput < LEAST_GOODPUT or refusal > SLOWEST_REFUSAL or seen.others:
        sys.exit("below the goal")


def _percentile(seconds: list[float], share: float) -> float:
    ordered = sorted(seconds) or [0.0]
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


if __name__ == "__main__":
    main()
