"""What vLLM's settings cost on a CPU: block size, chunked prefill, tokens of a step, dtype, cores.

    python bench/vllm_settings.py [--only NAME ...] [--rounds 3] [--layers 4]

Each configuration differs from rankd's profile in one setting. All engines are started first, then
every round gives each of them the same token ids, so ratios are paired by round; an engine that
waits uses no CPU. Loads: one request of 20 documents of about 90 tokens after a prefix of 67; four
such requests at once; one request of 5 documents of 500 tokens. Each has a new prefix. Weights are
random, in the width of Qwen3-Reranker-0.6B with fewer layers. An engine takes about 1 GB: measure a
few configurations at a time with --only. Needs the environment of `make test-vllm`. Compare CPU
seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from operator import attrgetter, truediv
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from engine import ANSWERS, Run, make_prompts
from rankd.config.settings import Settings
from rankd.engines import open_engine
from rankd.engines.base import Engine
from rankd.models.checkpoint import locate
from rankd.types import Prompt
from server import cpu_seconds
from support.checkpoints import make_checkpoint

MAX_TOKENS = 1024


@dataclass(frozen=True)
class Variant:
    """One configuration of vLLM.

    Attributes:
        vllm_args: arguments that replace those of rankd's profile.
        environment: vLLM's own variables.
    """

    dtype: str = "bfloat16"
    vllm_args: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)


PROFILE = "profile"

VARIANTS = {
    PROFILE: Variant(),
    "block 64": Variant(vllm_args={"block_size": 64}),
    "block 128 (vLLM's default)": Variant(vllm_args={"block_size": 128}),
    "no prefix caching": Variant(vllm_args={"enable_prefix_caching": False}),
    "no chunked prefill": Variant(vllm_args={"enable_chunked_prefill": False}),
    "steps of 1024": Variant(vllm_args={"max_num_batched_tokens": 1024}),
    "steps of 2048": Variant(vllm_args={"max_num_batched_tokens": 2048}),
    "steps of 8192": Variant(vllm_args={"max_num_batched_tokens": 8192}),
    # By default, vLLM leaves one core to its front end.
    "all cores": Variant(environment={"VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}),
    "float32": Variant(dtype="float32"),
    "float32, block 128": Variant(dtype="float32", vllm_args={"block_size": 128}),
    "float32, steps of 1024": Variant(dtype="float32", vllm_args={"max_num_batched_tokens": 1024}),
}

# Name -> the calls that are in flight at once: (documents, tokens of each).
LOADS = {"20 x 90": [(20, 90)], "4 times 20 x 90": [(20, 90)] * 4, "5 x 500": [(5, 500)]}

# For each load, the run of each round.
Runs = dict[str, list[Run]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=VARIANTS, metavar="NAME", default=[])
    parser.add_argument("--model", help="a causal Qwen3 checkpoint; default: random weights")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    names = list(dict.fromkeys([PROFILE, *(options.only or VARIANTS)]))
    with tempfile.TemporaryDirectory(prefix="rankd-bench-") as folder:
        model = options.model or _checkpoint(Path(folder) / "model", options.layers)
        _report(asyncio.run(_bench(model, names, options.rounds)))


def _checkpoint(folder: Path, layers: int) -> str:
    made = make_checkpoint(
        folder,
        hidden=1024,
        layers=layers,
        heads=16,
        kv_heads=8,
        head_dim=128,
        mlp=3072,
        dtype="bfloat16",
    )
    return str(made)


async def _bench(model: str, names: list[str], rounds: int) -> dict[str, Runs]:
    """For each configuration and load, the run of each round."""
    async with AsyncExitStack() as stack:
        engines = {name: await stack.enter_async_context(_open(model, name)) for name in names}
        return await measure(engines, rounds)


@asynccontextmanager
async def _open(model: str, name: str) -> AsyncIterator[Engine]:
    variant = VARIANTS[name]
    settings = Settings(
        engine="vllm",
        device="cpu",
        dtype=variant.dtype,
        max_tokens=MAX_TOKENS,
        vllm_args=variant.vllm_args,
    )
    print(f"starting {name} ...", file=sys.stderr)
    os.environ.update(variant.environment)
    async with open_engine(locate(model), ANSWERS, settings) as engine:
        for variable in variant.environment:
            del os.environ[variable]
        await engine.score(make_prompts(20, 90, seed=1_000))
        yield engine


async def measure(engines: dict[str, Engine], rounds: int) -> dict[str, Runs]:
    runs: dict[str, Runs] = {name: {load: [] for load in LOADS} for name in engines}
    seeds = itertools.count()  # No prompt twice: vLLM would find all of it in its cache.
    for _ in range(rounds):
        for load, calls in LOADS.items():
            prompts = [
                make_prompts(documents, tokens, seed=next(seeds)) for documents, tokens in calls
            ]
            for name, engine in engines.items():
                runs[name][load].append(await _run(engine, prompts))
    return runs


async def _run(engine: Engine, calls: list[list[Prompt]]) -> Run:
    """The engine is in processes of its own; the other engines' processes wait."""
    cpu, wall = cpu_seconds(os.getpid()), time.perf_counter()
    answers = await asyncio.gather(*map(engine.score, calls))
    wall = time.perf_counter() - wall
    return Run(wall, cpu_seconds(os.getpid()) - cpu, [logit for one in answers for logit in one])


def _report(runs: dict[str, Runs]) -> None:
    """Medians; ratios to the profile are paired by round."""
    print("| | " + " | ".join(f"{load}: CPU s | ratio | wall s | ratio" for load in LOADS) + " |")
    print("|---" * (1 + 4 * len(LOADS)) + "|")
    for name, by_load in runs.items():
        cells = [name]
        for load, rounds in by_load.items():
            base = runs[PROFILE][load]
            for part in (attrgetter("cpu"), attrgetter("wall")):
                cells.append(f"{statistics.median(map(part, rounds)):.2f}")
                ratios = map(truediv, map(part, rounds), map(part, base))
                cells.append(f"{statistics.median(ratios):.2f}")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
