"""Throughput of the host path: documents per second end to end, with a tiny model.

Measures HTTP, JSON, prompts, queues and the pipe to the engine and back. The model has one layer of
32 numbers and Qwen's real tokenizer. Each request has a new query and 20 documents of about 90
tokens.

    python bench/server.py [--seconds 8] [--clients 1 8 32] [--engine native|fake] [--model MODEL]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import orjson

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.checkpoints import make_checkpoint  # noqa: E402
from support.servers import family, serving  # noqa: E402

DOCUMENTS = 20
WORDS = 76  # About 90 of Qwen's tokens.


@dataclass
class Load:
    """The figures of one level of concurrency.

    Attributes:
        latencies: of each answered request, in seconds.
        cpu: CPU seconds of server and engine together.
    """

    clients: int
    seconds: float = 0.0
    cpu: float = 0.0
    latencies: list[float] = field(default_factory=list)

    @property
    def documents(self) -> int:
        return len(self.latencies) * DOCUMENTS

    def percentile(self, share: float) -> float:
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1000

    def row(self) -> str:
        return (
            f"| {self.clients} | {self.documents / self.seconds:,.0f} "
            f"| {len(self.latencies) / self.seconds:,.1f} "
            f"| {self.percentile(0.5):.1f} | {self.percentile(0.95):.1f} "
            f"| {self.cpu / max(self.documents, 1) * 1e6:,.0f} |"
        )


def texts() -> Callable[[int], str]:
    """A function that makes texts of real words by their length; the same in every run."""
    words = re.findall(r"[A-Za-z]+[,.;]?", (ROOT / "LICENSE").read_text())
    rng = random.Random(7)

    def text(length: int) -> str:
        start = rng.randrange(len(words) - length)
        return " ".join(words[start : start + length])

    return text


def bodies(count: int) -> list[bytes]:
    """Request bodies of real words. All queries differ, so no prefix is shared."""
    text = texts()
    return [
        orjson.dumps(
            {
                "query": f"{text(8)} {number}?",
                "documents": [text(WORDS) for _ in range(DOCUMENTS)],
                "return_documents": False,
            }
        )
        for number in range(count)
    ]


async def client(url: str, requests: list[bytes], number: int, until: float, load: Load) -> None:
    """One keep-alive connection with always one request in flight.

    Each client begins at another request, because equal ones in flight are computed once. An HTTP
    client would use more CPU than the server.
    """
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    index = load.clients * 31 + number * len(requests) // load.clients
    while time.perf_counter() < until:
        index += 1
        body = requests[index % len(requests)]
        began = time.perf_counter()
        writer.write(
            b"POST /v1/rerank HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        answer = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the server refused: {answer.decode()}")
        load.latencies.append(time.perf_counter() - began)
    writer.close()


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and its descendants so far, in nanoseconds' resolution."""
    seconds = 0.0
    for one in family(pid):
        # Linux's clock of a process's CPU time. /proc counts in hundredths of a second, which a
        # small model does not fill.
        with suppress(OSError):  # It has ended meanwhile.
            seconds += time.clock_gettime((~one << 3) | 2)
    return seconds


async def measure(url: str, pid: int, clients: int, seconds: float) -> Load:
    """Measure one level of concurrency, after a warm-up of one second."""
    requests = bodies(400)
    warm = Load(clients)
    await asyncio.gather(
        *(client(url, requests, one, time.perf_counter() + 1, warm) for one in range(clients))
    )
    load = Load(clients)
    cpu, began = cpu_seconds(pid), time.perf_counter()
    await asyncio.gather(
        *(client(url, requests, one, began + seconds, load) for one in range(clients))
    )
    load.seconds = time.perf_counter() - began
    load.cpu = cpu_seconds(pid) - cpu
    return load


def _near_zero(folder: Path) -> Path:
    return make_checkpoint(folder / "model", hidden=32, layers=1, mlp=32, heads=1, kv_heads=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=8.0, help="per level of concurrency")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--engine", default="native", choices=["native", "fake"])
    parser.add_argument("--model", help="default: the tiny model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = options.model or str(_near_zero(Path(folder)))
        arguments = [model, "--engine", options.engine, "--self-check", "off", "--cache-mb", "0"]
        with serving(*arguments, "--no-access-log") as server:
            print(f"engine {options.engine}, {DOCUMENTS} documents of about 90 tokens a request\n")
            print(
                "| clients | documents/s | requests/s | p50 ms | p95 ms | server CPU us/document |"
            )
            print("|---|---|---|---|---|---|")
            for clients in options.clients:
                work = measure(server.url, server.process.pid, clients, options.seconds)
                print(asyncio.run(work).row(), flush=True)
            server.stop(signal.SIGTERM)


if __name__ == "__main__":
    main()
