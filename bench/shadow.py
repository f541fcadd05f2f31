"""What shadow scoring costs online requests: their latency with a share of 20 % against none.

Two servers of one configuration, one with a shadow, asked in turns in one run, so that both meet
the same noise. A second shadow may be a server that hangs.

    python bench/shadow.py [MODEL] [--share 0.2] [--rounds 6] [--hang]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import sys
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "bench"))

from server import texts  # noqa: E402
from support.servers import serving  # noqa: E402

DOCUMENTS, REQUESTS = 20, 40
INSTRUCTION = "Given a question, find passages that answer it in one sentence"


async def measure(urls: list[str], rounds: int, clients: int) -> list[list[float]]:
    """Latencies in seconds of each server's requests, `clients` at a time."""
    text = texts()
    seconds: list[list[float]] = [[] for _ in urls]

    async def ask(http: httpx.AsyncClient, url: str) -> float:
        body = {"query": text(8), "documents": [text(76) for _ in range(DOCUMENTS)]}
        began = time.perf_counter()
        (await http.post(f"{url}/v1/rerank", json=body)).raise_for_status()
        return time.perf_counter() - began

    async with httpx.AsyncClient(timeout=600) as http:
        for number in range(rounds):
            turns = list(enumerate(urls))
            for index, url in turns if number % 2 else reversed(turns):
                for _ in range(REQUESTS // clients):
                    group = [ask(http, url) for _ in range(clients)]
                    seconds[index] += await asyncio.gather(*group)
                    await asyncio.sleep(0.02)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="builtin")
    parser.add_argument("--share", type=float, default=0.2)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--hang", action="store_true", help="the shadow is a server that hangs")
    options = parser.parse_args()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        table = {
            "name": "other",
            "share": options.share,
            "timeout_seconds": 5 if options.hang else 60,
        }
        if options.hang:
            table["url"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        else:
            table["instruction"] = INSTRUCTION
        flags = ("--cache-mb", "0", "--no-access-log")
        with (
            serving(options.model, *flags) as plain,
            serving(options.model, *flags, "--shadow", json.dumps([table])) as shadowed,
        ):
            urls = [plain.url, shadowed.url]
            none, some = asyncio.run(measure(urls, options.rounds, options.clients))
            metrics = httpx.get(f"{shadowed.url}/metrics").text
    print(f"{DOCUMENTS} documents, {options.model}, {options.clients} clients\n")
    print("| | requests | p50 ms | p99 ms |\n|---|---|---|---|")
    points = []
    for name, seconds in (("without", none), (f"share {options.share:g}", some)):
        p50, p99 = statistics.median(seconds), statistics.quantiles(seconds, n=100)[-1]
        points.append((p50, p99))
        print(f"| {name} | {len(seconds)} | {p50 * 1000:.1f} | {p99 * 1000:.1f} |")
    print(f"| ratio | | {points[1][0] / points[0][0]:.2f} | {points[1][1] / points[0][1]:.2f} |\n")
    print(
        "\n".join(line for line in metrics.splitlines() if "rankd_shadow_requests_total{" in line)
    )


if __name__ == "__main__":
    main()
