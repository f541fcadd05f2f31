"""Cost of --deterministic: the native engine with and without it, in turn.

    python bench/deterministic.py [--model builtin|FOLDER] [--documents 20] [--rounds 5]

Both get the same token ids: first one request whose prefix is not cached, then one request per
document at once. On a machine with other work, compare the CPU seconds. Without --model the
weights are random, in the shape of Qwen3-Reranker-0.6B (6 GB of memory, 1.2 GB of disk).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from engine import ANSWERS, make_prompts, make_random
from rankd.config.settings import Settings
from rankd.engines.native import NativeEngine, open_engine
from rankd.models.checkpoint import Checkpoint, locate
from rankd.types import Prompt
from server import cpu_seconds


@dataclass(frozen=True)
class Run:
    wall: float
    cpu: float
    logits: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="default: random weights")
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=90, help="mean length of a document")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rankd-bench-") as folder:
        checkpoint = locate(options.model or make_random(Path(folder) / "qwen3-0.6b-random"))
        asyncio.run(_bench(checkpoint, options))


async def _bench(checkpoint: Checkpoint, options: argparse.Namespace) -> None:
    vocabulary = checkpoint.config["vocab_size"]
    settings = Settings(device="cpu", dtype="float32", threads=options.threads)
    async with AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(
                open_engine(
                    checkpoint, ANSWERS, settings.model_copy(update={"deterministic": flag})
                )
            )
            for flag in (False, True)
        ]
        for engine in engines:
            await engine.score(_within(make_prompts(2, 8), vocabulary))
        print("| | wall s | CPU s | wall, paired | CPU, paired | logits apart |")
        print("|---|---|---|---|---|---|")
        for name, alone in (("one request", False), ("as many requests", True)):
            pairs = []
            for number in range(options.rounds):
                print(f"{name}, round {number + 1} of {options.rounds} ...", file=sys.stderr)
                made = make_prompts(options.documents, options.tokens, seed=2 * number + alone)
                prompts = _within(made, vocabulary)
                if alone:
                    prompts = [
                        Prompt((*prompt.prefix, index), prompt.suffix)
                        for index, prompt in enumerate(prompts)
                    ]
                calls = [[prompt] for prompt in prompts] if alone else [prompts]
                order = engines if number % 2 else engines[::-1]
                runs = {engine: await _measure(engine, calls) for engine in order}
                pairs.append((runs[engines[0]], runs[engines[1]]))
            await _refuse_other_bits(engines[1], prompts, pairs[-1][1])
            _report(name, pairs)


def _within(prompts: Sequence[Prompt], vocabulary: int) -> list[Prompt]:
    """Prompts with token ids below the vocabulary's size; equal prefixes stay one object."""

    def ids(tokens: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(token % vocabulary for token in tokens)

    prefixes = {id(prompt.prefix): ids(prompt.prefix) for prompt in prompts}
    return [Prompt(prefixes[id(prompt.prefix)], ids(prompt.suffix)) for prompt in prompts]


async def _measure(engine: NativeEngine, calls: Sequence[Sequence[Prompt]]) -> Run:
    cpu, wall = cpu_seconds(engine.pid), time.perf_counter()
    answers = await asyncio.gather(*map(engine.score, calls))
    wall = time.perf_counter() - wall
    logits = [logit for answer in answers for logit in answer]
    return Run(wall, cpu_seconds(engine.pid) - cpu, logits)


async def _refuse_other_bits(engine: NativeEngine, prompts: Sequence[Prompt], run: Run) -> None:
    """Exit if the scores depend on the order of the prompts."""
    backwards = (await engine.score(prompts[::-1]))[::-1]
    packed = [struct.pack(f"{len(some)}d", *some) for some in (backwards, run.logits)]
    if packed[0] != packed[1]:
        sys.exit("the bits differ, so the timings mean nothing")


def _report(name: str, pairs: Sequence[tuple[Run, Run]]) -> None:
    walls = [statistics.median(pair[index].wall for pair in pairs) for index in (0, 1)]
    cpus = [statistics.median(pair[index].cpu for pair in pairs) for index in (0, 1)]
    wall, cpu = (
        statistics.median(getattr(slow, name) / getattr(fast, name) for fast, slow in pairs)
        for name in ("wall", "cpu")
    )
    apart = max(
        abs(one - other)
        for fast, slow in pairs
        for one, other in zip(fast.logits, slow.logits, strict=True)
    )
    print(
        f"| {name} | {walls[0]:.3f} / {walls[1]:.3f} | {cpus[0]:.2f} / {cpus[1]:.2f} "
        f"| {wall:.2f} | {cpu:.2f} | {apart:.1e} |"
    )


if __name__ == "__main__":
    main()
