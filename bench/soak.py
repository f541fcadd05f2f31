"""Memory and open files during a hundred thousand requests, which must stay flat.

On the fake engine, with clients that connect and disconnect. One request in ten is refused; one
client in fifty disconnects before the response.

    python bench/soak.py [--requests 100000] [--clients 16]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import time
from pathlib import Path

import orjson

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "bench"))

from server import texts  # noqa: E402
from start import memory  # noqa: E402
from support.servers import family, serving  # noqa: E402

WARM_UP = 2_000
PER_CONNECTION = 50


def files(pid: int) -> int:
    """Open file descriptors of a process and its children."""
    return sum(len(list(Path(f"/proc/{one}/fd").iterdir())) for one in family(pid))


async def ask_many(url: str, count: int, clients: int, rng: random.Random) -> None:
    """Send `count` requests, on connections that are closed after some of them."""
    host, _, port = url.removeprefix("http://").partition(":")
    text = texts()
    left = count

    async def client() -> None:
        nonlocal left
        while left > 0:
            reader, writer = await asyncio.open_connection(host, int(port))
            for _ in range(PER_CONNECTION):
                left -= 1
                leaves = rng.random() < 0.02
                documents = [] if rng.random() < 0.1 else [text(12) for _ in range(5)]
                body = orjson.dumps({"query": text(6), "documents": documents})
                writer.write(b"POST /v1/rerank HTTP/1.1\r\nhost: localhost\r\n")
                writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
                if leaves:
                    break
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"content-length: ")[1].split(b"\r\n")[0]))
                status = int(head.split(b" ", 2)[1])
                assert status == (200 if documents else 400), head
            writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    rng = random.Random(3)
    samples = []
    with serving("--engine", "fake", "--cache-mb", "0", "--no-access-log") as server:
        pid = server.process.pid
        steps = [WARM_UP, options.requests // 2, options.requests - options.requests // 2]
        began = time.perf_counter()
        for name, count in zip(("start", "middle", "end"), steps, strict=True):
            asyncio.run(ask_many(server.url, count, options.clients, rng))
            time.sleep(0.5)  # The last connections close.
            samples.append((name, memory(pid), files(pid)))
        seconds = time.perf_counter() - began
        status, _ = server.stop(signal.SIGTERM)
    print(f"{sum(steps):,} requests in {seconds:.0f} s, server ended with {status}\n")
    print("| | MiB (PSS) | open files |\n|---|---|---|")
    for name, size, opened in samples:
        print(f"| {name} | {size} | {opened} |")
    (_, before, opened), *_, (_, after, left) = samples
    if after > before * 1.1 or left > opened + 2:
        sys.exit("memory or open files grew")


if __name__ == "__main__":
    main()
