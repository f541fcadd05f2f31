"""CPU and wall seconds of the vLLM and the native engine on one checkpoint, without HTTP.

Random weights in the shape of Qwen3-Reranker-0.6B, float32; 20 documents of about 90 tokens with a
prefix of 67, a new prefix each round. Needs the environment of `make test-vllm`.

    python bench/engines.py [--rounds 3] [--model FOLDER]
    taskset -c 0 python bench/engines.py          # on one core
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from engine import ANSWERS, Run, make_prompts, make_random
from rankd.config.settings import Settings
from rankd.engines import open_engine
from rankd.engines.base import Engine
from rankd.models.checkpoint import Checkpoint, locate
from rankd.types import Prompt

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from server import cpu_seconds

ENGINES = ("vllm", "native")


async def _bench(checkpoint: Checkpoint, rounds: int) -> None:
    runs: dict[str, list[Run]] = {name: [] for name in ENGINES}
    async with AsyncExitStack() as stack:
        engines: dict[str, Engine] = {}
        for name in ENGINES:
            settings = Settings(engine=name, device="cpu", dtype="float32", max_tokens=2048)
            engines[name] = await stack.enter_async_context(
                open_engine(checkpoint, ANSWERS, settings)
            )
            await engines[name].score(make_prompts(2, 8))
        for number in range(rounds):
            prompts = make_prompts(20, 90, seed=number)
            for name, engine in engines.items():
                runs[name].append(await _measure(engine, prompts))
    _report(runs)


async def _measure(engine: Engine, prompts: list[Prompt]) -> Run:
    """CPU includes both engines' processes; the idle one uses none."""
    cpu, wall = cpu_seconds(os.getpid()), time.perf_counter()
    logits = await engine.score(prompts)
    return Run(time.perf_counter() - wall, cpu_seconds(os.getpid()) - cpu, logits)


def _report(runs: dict[str, list[Run]]) -> None:
    apart = max(
        abs(one - other)
        for ours, theirs in zip(runs["native"], runs["vllm"], strict=True)
        for one, other in zip(ours.logits, theirs.logits, strict=True)
    )
    print(f"\n{len(os.sched_getaffinity(0))} cores; logits differ by at most {apart:.1e}\n")
    print("| engine | wall s | CPU s | wall ratio | CPU ratio |")
    print("|---|---|---|---|---|")
    for name in ENGINES:
        pairs = list(zip(runs["vllm"], runs[name], strict=True))
        print(
            f"| {name} | {statistics.median(run.wall for run in runs[name]):.1f} "
            f"| {statistics.median(run.cpu for run in runs[name]):.1f} "
            f"| {statistics.median(one.wall / run.wall for one, run in pairs):.2f} "
            f"| {statistics.median(one.cpu / run.cpu for one, run in pairs):.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a causal Qwen3 checkpoint; default: random weights")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rankd-bench-") as folder:
        checkpoint = locate(options.model or make_random(Path(folder) / "qwen3-0.6b-random"))
        asyncio.run(_bench(checkpoint, options.rounds))


if __name__ == "__main__":
    main()
