"""The native engine against the tutorials' way, on this machine's CPU.

    python bench/engine.py [--model FOLDER] [--documents 20] [--rounds 3] [--threads 0]

The tutorials' way is the model card's: one left-padded batch through transformers,
logits of every token over the whole vocabulary, float32. "Last logits only" is the
same with `logits_to_keep=1`. All see the same token ids, in turn, with as many
threads, which sleep while they wait. CPU seconds are the honest column on a machine
with other work. Without --model the weights are random, in the shape of
Qwen3-Reranker-0.6B (needs about 9 GB of memory, 1.2 GB of disk).
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

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ANSWERS = AnswerTokenIds(yes=9693, no=2152)
HEAD_TOKENS = 67


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
    """Give the reference the waiting of our worker's threads, for its own good.

    OpenMP reads the variable when it is loaded, and spinning threads would be charged
    to transformers wherever the machine has other work.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a causal Qwen3 checkpoint; random weights when absent")
    parser.add_argument("--documents", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=90, help="mean length of a document")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="0 takes all cores")
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
    settings = Settings(threads=threads, device="cpu", dtype="float32")
    runs: dict[str, list[Run]] = {}
    async with open_engine(checkpoint, ANSWERS, settings) as engine:
        await engine.score(make_prompts(2, 8))
        for round_ in range(options.rounds):
            print(f"round {round_ + 1} of {options.rounds} ...", file=sys.stderr)
            # Another head each time: the engine keeps heads, and shall not profit here.
            prompts = make_prompts(options.documents, options.tokens, seed=round_)
            tutorial = _measure(partial(_tutorial, model, prompts))
            last = _measure(partial(_tutorial, model, prompts, logits_to_keep=1))
            native = await _measure_native(engine, prompts)
            _compare(tutorial, native)
            for name, run in (("tutorial", tutorial), ("last", last), ("native", native)):
                runs.setdefault(name, []).append(run)
    _report(runs, prompts, threads)


def make_prompts(count: int, tokens: int, seed: int = 99) -> list[Prompt]:
    """Random ids; lengths spread like real paragraphs, by a third around the mean."""
    dice = random.Random(seed)
    lengths = [max(4, round(dice.gauss(tokens, tokens / 3))) for _ in range(count)]
    head = _ids(dice, HEAD_TOKENS)
    return [Prompt(head, _ids(dice, length)) for length in lengths]


def _ids(dice: random.Random, count: int) -> tuple[int, ...]:
    return tuple(dice.randrange(151_000) for _ in range(count))


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
    for place, prompt in enumerate(prompts):
        ids[place, longest - len(prompt) :] = torch.tensor(prompt.prefix + prompt.suffix)
        mask[place, longest - len(prompt) :] = 1
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=mask, **options).logits[:, -1, :]
    logits_of_interest: list[float] = (logits[:, ANSWERS.yes] - logits[:, ANSWERS.no]).tolist()
    return logits_of_interest


def _measure(score: Callable[[], list[float]]) -> Run:
    cpu, wall = time.process_time(), time.perf_counter()
    logits = score()
    return Run(time.perf_counter() - wall, time.process_time() - cpu, logits)


async def _measure_native(engine: NativeEngine, prompts: Sequence[Prompt]) -> Run:
    cpu, wall = time.process_time() + _cpu_of(engine.pid), time.perf_counter()
    logits = await engine.score(prompts)
    wall = time.perf_counter() - wall
    return Run(wall, time.process_time() + _cpu_of(engine.pid) - cpu, logits)


def _cpu_of(pid: int) -> float:
    """CPU seconds of a process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _compare(tutorial: Run, native: Run) -> None:
    apart = max(abs(a - b) for a, b in zip(tutorial.logits, native.logits, strict=True))
    if apart > 1e-3:
        sys.exit(f"the logits differ by {apart:.2g}: nothing else counts")
    print(f"logits agree within {apart:.1e}", file=sys.stderr)


def _report(runs: dict[str, list[Run]], prompts: Sequence[Prompt], threads: int) -> None:
    names = {
        "tutorial": "transformers, as in tutorials",
        "last": "transformers, last logits only",
        "native": "rankd, native engine",
    }
    tokens = sum(map(len, prompts))
    print(f"{len(prompts)} documents, {tokens} tokens of pairs, float32, {threads} threads;")
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
