"""Speed of the native engine compared with the model card's code, on this machine's CPU.

    python bench/engine.py [--model FOLDER] [--documents 20] [--rounds 3] [--threads 0]
        [--dtype float32]

The model card's code, which tutorials copy, runs one left-padded batch through transformers and
computes the logits of every token over the whole vocabulary, in float32. "Last logits only" is the
same with `logits_to_keep=1`. All get the same token ids, in turn, with the same number of threads,
which sleep while they wait. On a machine with other work, compare the CPU seconds. Without --model
the weights are random, in the shape of Qwen3-Reranker-0.6B (9 GB of memory, 1.2 GB of disk).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankd.config.settings import Settings
from rankd.engines.native import NativeEngine, open_engine
from rankd.models.checkpoint import Checkpoint, locate
from rankd.types import AnswerTokenIds, Prompt
from server import cpu_seconds

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ANSWERS = AnswerTokenIds(yes=9693, no=2152)
PREFIX_TOKENS = 67


@dataclass(frozen=True)
class Run:
    wall: float
    cpu: float
    logits: list[float]


def main() -> None:
    options = _options()
    _wait_passively()
    with tempfile.TemporaryDirectory(prefix="rankd-bench-") as folder:
        checkpoint = locate(options.model or make_random(Path(folder) / "qwen3-0.6b-random"))
        asyncio.run(_bench(checkpoint, options))


def _wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, as in rankd's worker.

    OpenMP reads the variable when it is loaded. Spinning threads would count as CPU time of
    transformers if the machine has other work.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a causal Qwen3 checkpoint; default: random weights")
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=90, help="mean length of a document")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0: all cores")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of rankd's matrix products; transformers computes in float32",
    )
    return parser.parse_args()


def make_random(folder: Path) -> str:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from support.checkpoints import make_checkpoint

    print("making random weights ...", file=sys.stderr)
    make_checkpoint(
        folder,
        hidden=1024,
        layers=28,
        heads=16,
        kv_heads=8,
        head_dim=128,
        mlp=3072,
        dtype="bfloat16",
    )
    return str(folder)


async def _bench(checkpoint: Checkpoint, options: argparse.Namespace) -> None:
    prompts = make_prompts(options.documents, options.tokens)
    threads = options.threads or len(os.sched_getaffinity(0))
    model = _reference(checkpoint, threads)
    settings = Settings(threads=threads, device="cpu", dtype=options.dtype)
    runs: dict[str, list[Run]] = {}
    async with open_engine(checkpoint, ANSWERS, settings) as engine:
        await engine.score(make_prompts(2, 8))
        for round_ in range(options.rounds):
            print(f"round {round_ + 1} of {options.rounds} ...", file=sys.stderr)
            # A new prefix each time, so that the engine's prefix cache has no effect.
            prompts = make_prompts(options.documents, options.tokens, seed=round_)
            tutorial = _measure(partial(_tutorial, model, prompts))
            last = _measure(partial(_tutorial, model, prompts, logits_to_keep=1))
            native = await _measure_native(engine, prompts)
            _compare(tutorial, native, exact=options.dtype == "float32")
            for name, run in (("tutorial", tutorial), ("last", last), ("native", native)):
                runs.setdefault(name, []).append(run)
    _report(runs, prompts, threads, options.dtype)


def make_prompts(count: int, tokens: int, seed: int = 99) -> list[Prompt]:
    """Prompts of random ids with one prefix. Lengths: standard deviation a third of the mean."""
    rng = random.Random(seed)
    lengths = [max(4, round(rng.gauss(tokens, tokens / 3))) for _ in range(count)]
    prefix = _ids(rng, PREFIX_TOKENS)
    return [Prompt(prefix, _ids(rng, length)) for length in lengths]


def _ids(rng: random.Random, count: int) -> tuple[int, ...]:
    return tuple(rng.randrange(151_000) for _ in range(count))


def _reference(checkpoint: Checkpoint, threads: int) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        checkpoint.path, dtype=torch.float32
    )
    model.eval()
    return model


def _tutorial(model: PreTrainedModel, prompts: Sequence[Prompt], **options: Any) -> list[float]:
    import torch

    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt.prefix + prompt.suffix)
        mask[row, longest - len(prompt) :] = 1
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, **options).logits[:, -1, :]
    differences: list[float] = (logits[:, ANSWERS.yes] - logits[:, ANSWERS.no]).tolist()
    return differences


def _measure(score: Callable[[], list[float]]) -> Run:
    cpu, wall = time.process_time(), time.perf_counter()
    logits = score()
    return Run(time.perf_counter() - wall, time.process_time() - cpu, logits)


async def _measure_native(engine: NativeEngine, prompts: Sequence[Prompt]) -> Run:
    cpu, wall = time.process_time() + cpu_seconds(engine.pid), time.perf_counter()
    logits = await engine.score(prompts)
    wall = time.perf_counter() - wall
    return Run(wall, time.process_time() + cpu_seconds(engine.pid) - cpu, logits)


def _compare(tutorial: Run, native: Run, *, exact: bool) -> None:
    errors = [abs(a - b) for a, b in zip(tutorial.logits, native.logits, strict=True)]
    if exact and max(errors) > 1e-3:
        sys.exit(f"the logits differ by {max(errors):.2g}, so the timings mean nothing")
    spread = max(tutorial.logits) - min(tutorial.logits)
    print(
        f"logits differ by {statistics.fmean(errors):.1e} on average, {max(errors):.1e} at most; "
        f"they spread over {spread:.3g}",
        file=sys.stderr,
    )


def _report(
    runs: dict[str, list[Run]], prompts: Sequence[Prompt], threads: int, dtype: str
) -> None:
    names = {
        "tutorial": "transformers, as in tutorials",
        "last": "transformers, last logits only",
        "native": "rankd, native engine",
    }
    tokens = sum(map(len, prompts))
    print(
        f"{len(prompts)} documents, {tokens} tokens of pairs, rankd in {dtype}, {threads} threads;"
    )
    print(f"medians of {len(runs['native'])} interleaved rounds, ratios paired by round.\n")
    print("| | wall s | CPU s | CPU ratio | pair tokens per CPU s |")
    print("|---|---|---|---|---|")
    for key, name in names.items():
        wall = statistics.median(run.wall for run in runs[key])
        cpu = statistics.median(run.cpu for run in runs[key])
        pairs = zip(runs["tutorial"], runs[key], strict=True)
        ratio = statistics.median(tutorial.cpu / run.cpu for tutorial, run in pairs)
        print(f"| {name} | {wall:.2f} | {cpu:.2f} | {ratio:.2f} | {tokens / cpu:.0f} |")


if __name__ == "__main__":
    main()
