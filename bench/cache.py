"""Cost and saving of the score cache: a request with 100 documents, hits and misses.

    python bench/cache.py [--rounds 200] [--documents 100] [--characters 500] [--redis URL]

Times the ranker on the fake engine: prompts, keys, look-ups and writes, without HTTP and model.
Each round sends a new query to each cache in turn; then all queries are repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from rankd.config.settings import Settings
from rankd.ranking.cache import ENTRY_BYTES, pair_keys
from rankd.ranking.ranker import Ranker
from rankd.server.app import open_ranker
from rankd.types import RankRequest

WORDS = re.findall(r"[A-Za-z]+[,.;]?", (Path(__file__).parent.parent / "LICENSE").read_text())


def make_requests(rounds: int, documents: int, characters: int) -> list[RankRequest]:
    chance = random.Random(7)

    def text(size: int) -> str:
        start = chance.randrange(len(WORDS) - size)
        return " ".join(WORDS[start : start + size])[:characters]

    texts = tuple(f"{number} {text(characters // 4)}" for number in range(documents))
    return [RankRequest(f"{text(8)} {number}?", texts) for number in range(rounds)]


async def timed(ranker: Ranker, request: RankRequest) -> tuple[float, float]:
    """Milliseconds of the whole request, and of the part after the prompts."""
    began = time.perf_counter()
    ranking = await ranker.rank_measured([request])
    return (time.perf_counter() - began) * 1000, ranking.scoring * 1000


async def bench(options: argparse.Namespace) -> None:
    requests = make_requests(options.rounds, options.documents, options.characters)
    rows: dict[str, list[tuple[float, float]]] = {}
    async with AsyncExitStack() as stack:
        rankers = {}
        for name, changes in {
            "memory": {},
            "none": {"cache_mb": 0},
            **({"Redis": {"cache_mb": 0, "cache_redis": options.redis}} if options.redis else {}),
        }.items():
            settings = Settings.model_validate({"engine": "fake", **changes})
            _, rankers[name] = await stack.enter_async_context(open_ranker(settings))
        for request in requests:
            uncached = replace(request, cache=False)
            rows.setdefault("`cache: false`", []).append(await timed(rankers["none"], uncached))
            for name, ranker in rankers.items():
                rows.setdefault(f"{name}, misses", []).append(await timed(ranker, request))
        for request in requests:
            for name, ranker in rankers.items():
                if name != "none":
                    rows.setdefault(f"{name}, hits", []).append(await timed(ranker, request))
        encoder = next(iter(rankers.values())).encoder
        prompts = encoder.encode_blocking(requests[0]).prompts
    print(f"{options.documents} documents of {options.characters} characters\n")
    print("| cache | request ms | after the prompts ms | after the prompts, µs/document |")
    print("|---|---|---|---|")
    for name, times in rows.items():
        total, after = (statistics.median(column) for column in zip(*times, strict=True))
        each = after * 1000 / options.documents
        print(f"| {name} | {total:.2f} | {after:.2f} | {each:.1f} |")
    began = time.perf_counter()
    for _ in range(100):
        pair_keys(prompts, b"identity")
    each = (time.perf_counter() - began) / 100 / len(prompts) * 1e6
    tokens = statistics.mean(len(prompt.suffix) for prompt in prompts)
    print(
        f"\nper key: {each:.1f} µs for {tokens:.0f} tokens; 64 MiB: {(64 << 20) // ENTRY_BYTES:,}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--characters", type=int, default=500)
    parser.add_argument("--redis", help="also measure this Redis (URL)")
    asyncio.run(bench(parser.parse_args()))


if __name__ == "__main__":
    main()
