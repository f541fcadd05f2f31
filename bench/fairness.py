"""Latency of small requests beside large ones, as a multiple of their latency alone.

In one run, on one server: requests with five documents are repeated, first alone, then while a
request with a thousand documents is being scored, then while another key sends many requests
at once. `--engine vllm` needs the environment of `make setup-vllm`.

    python bench/fairness.py [MODEL] [--engine native] [--rounds 3] [--goal 3]
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "bench"))

from server import texts  # noqa: E402
from support.servers import serving  # noqa: E402

LARGE, SMALL, CROWD = 1000, 5, 16
ALONE = 40  # Small requests per round without other load.

Ask = Callable[[str, int], Awaitable[float]]


async def measure(url: str, rounds: int) -> list[tuple[str, list[float]]]:
    """Latencies of small requests in seconds, in each situation."""
    text = texts()
    alone: list[float] = []
    beside: list[float] = []
    crowded: list[float] = []
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:

        async def ask(key: str, count: int) -> float:
            body = {
                "query": text(8),
                "documents": [text(76) for _ in range(count)],
                "return_documents": False,
            }
            began = time.perf_counter()
            reply = await http.post(
                "/v1/rerank", json=body, headers={"authorization": f"Bearer {key}"}
            )
            reply.raise_for_status()
            return time.perf_counter() - began

        await ask("small", SMALL)
        for _ in range(rounds):
            alone += [await ask("small", SMALL) for _ in range(ALONE)]
            beside += await _while(ask, [asyncio.create_task(ask("large", LARGE))])
            crowd = [asyncio.create_task(ask("crowd", 5 * SMALL)) for _ in range(CROWD * 4)]
            crowded += await _while(ask, crowd)
    return [
        ("alone", alone),
        (f"beside one request of {LARGE:,}", beside),
        (f"beside {CROWD * 4} requests of {5 * SMALL} by another key", crowded),
    ]


async def _while(ask: Ask, load: list[asyncio.Task[float]]) -> list[float]:
    """Latencies of small requests during the load; one that ends after the load does not count."""
    await asyncio.sleep(0.3)
    seconds: list[float] = []
    while not any(task.done() for task in load):
        took = await ask("small", SMALL)
        if not all(task.done() for task in load):
            seconds.append(took)
        await asyncio.sleep(0.02)
    await asyncio.gather(*load)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="builtin")
    parser.add_argument("--engine", choices=("native", "vllm"), default="native")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--goal", type=float, default=3.0, help="exit with an error above this ratio"
    )
    options = parser.parse_args()
    flags = ("--engine", options.engine, "--cache-mb", "0", "--no-access-log")
    keys = [part for key in ("small", "large", "crowd") for part in ("--api-key", key)]
    with serving(options.model, *flags, *keys) as server:
        situations = asyncio.run(measure(server.url, options.rounds))
        server.stop(signal.SIGTERM)
    idle = statistics.median(situations[0][1])
    print(f"{SMALL} documents of about 90 tokens, {options.model}, {options.engine} engine\n")
    print("| situation | requests | p50 ms | p95 ms | ratio of medians |")
    print("|---|---|---|---|---|")
    for name, seconds in situations:
        p95 = statistics.quantiles(seconds, n=20)[-1] * 1000 if len(seconds) > 1 else float("nan")
        middle = statistics.median(seconds)
        print(
            f"| {name} | {len(seconds)} | {middle * 1000:.1f} | {p95:.1f} | {middle / idle:.2f} |"
        )
    if any(statistics.median(seconds) > options.goal * idle for _, seconds in situations[1:]):
        sys.exit(f"more than {options.goal} times the latency alone")


if __name__ == "__main__":
    main()
