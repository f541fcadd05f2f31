"""The native engine against its matrix products alone: what is there to gain on a CPU.

    python bench/products.py [--model FOLDER] [--dtype bfloat16] [--rounds 3]
        [--shapes 20x90 100x30 5x500 1x8000]

A shape is documents x tokens of each, after a prefix of 67 tokens. "Layers" multiplies matrices of
the shapes of the model's linear layers by as many rows as the engine does, by `torch.mm` and as the
engine does (`rankd.engines.native.linear`); "attention" multiplies queries and keys, and weights
and values, in blocks of queries that skip the masked half. Nothing else: no norms, softmax or
copies. The ratios are of the engine to both kinds of layers, each with attention. All get the same
number of threads, which sleep while they wait, and take turns. On a machine with other work, only
the ratios mean something. Without --model the weights are random, in the shape of
Qwen3-Reranker-0.6B (4 GB of memory, in float32 8 GB; 1.2 GB of disk).
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from deterministic import _within
from engine import (
    ANSWERS,
    PREFIX_TOKENS,
    _measure_native,
    _wait_passively,
    make_prompts,
    make_random,
)
from rankd.config.settings import Settings
from rankd.engines.native import NativeEngine, open_engine
from rankd.engines.native.architecture import Architecture, read_architecture
from rankd.engines.native.linear import Linear
from rankd.models.checkpoint import Checkpoint, locate
from rankd.types import Prompt

# Queries of one product of attention.
_BLOCK = 128


@dataclass(frozen=True)
class Round:
    """CPU seconds of one round."""

    layers_by_mm: float
    layers: float
    attention: float
    engine: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a Qwen3 checkpoint; default: random weights")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", nargs="+", default=["20x90", "100x30", "5x500", "1x8000"])
    options = parser.parse_args()
    _wait_passively()
    with tempfile.TemporaryDirectory(prefix="rankd-bench-") as folder:
        checkpoint = locate(options.model or make_random(Path(folder) / "qwen3-0.6b-random"))
        asyncio.run(_bench(checkpoint, options))


async def _bench(checkpoint: Checkpoint, options: argparse.Namespace) -> None:
    torch.set_num_threads(options.threads)
    products = Products(read_architecture(checkpoint.config), getattr(torch, options.dtype))
    settings = Settings(threads=options.threads, device="cpu", dtype=options.dtype)
    print(
        f"{options.dtype}, {options.threads} threads; medians of {options.rounds} rounds in turn,"
    )
    print("ratios paired by round.\n")
    print(
        "| documents | layers by torch.mm, CPU s | layers | attention | engine "
        "| ratio to torch.mm | ratio |"
    )
    print("|---|---|---|---|---|---|---|")
    async with open_engine(checkpoint, ANSWERS, settings) as engine:
        vocabulary = checkpoint.config["vocab_size"]
        await engine.score(_within(make_prompts(2, 8), vocabulary))
        for shape in options.shapes:
            documents, tokens = map(int, shape.split("x"))
            # A new prefix each time, so that the engine's prefix cache has no effect.
            requests = [
                _within(make_prompts(documents, tokens, seed), vocabulary)
                for seed in range(options.rounds)
            ]
            rounds = [await _round(engine, products, prompts) for prompts in requests]
            print(_row(f"{documents} x {tokens:,}", rounds), flush=True)


async def _round(engine: NativeEngine, products: Products, prompts: Sequence[Prompt]) -> Round:
    lengths = [len(prompt.suffix) for prompt in prompts]
    by_mm = _cpu(partial(products.layers_by_mm, lengths))
    layers = _cpu(partial(products.layers, lengths))
    attention = _cpu(partial(products.attention, lengths))
    run = await _measure_native(engine, prompts)
    print(
        f"layers {by_mm:.2f}, {layers:.2f}, attention {attention:.2f}, engine {run.cpu:.2f}",
        file=sys.stderr,
    )
    return Round(by_mm, layers, attention, run.cpu)


def _row(name: str, rounds: Sequence[Round]) -> str:
    columns = [
        [one.layers_by_mm for one in rounds],
        [one.layers for one in rounds],
        [one.attention for one in rounds],
        [one.engine for one in rounds],
        [one.engine / (one.layers_by_mm + one.attention) for one in rounds],
        [one.engine / (one.layers + one.attention) for one in rounds],
    ]
    return " | ".join([f"| {name}", *(f"{statistics.median(one):.2f}" for one in columns)]) + " |"


def _cpu(function: Callable[[], None]) -> float:
    began = time.process_time()
    with torch.inference_mode():
        function()
    return time.process_time() - began


class Products:
    """Matrices in the shapes of a model; the values do not matter."""

    def __init__(self, architecture: Architecture, dtype: torch.dtype) -> None:
        self._arch = arch = architecture
        self._dtype = dtype
        self._query_size = arch.heads * arch.head_dim
        self._key_size = 2 * arch.kv_heads * arch.head_dim
        shapes = (
            (self._query_size + self._key_size, arch.hidden_size),
            (arch.hidden_size, self._query_size),
            (2 * arch.mlp_size, arch.hidden_size),
            (arch.hidden_size, arch.mlp_size),
        )
        # Of every layer, because the engine reads all of them from memory too.
        self._matrices = [[self._filled(*shape) for shape in shapes] for _ in range(arch.layers)]
        self._linears = [[Linear(matrix) for matrix in layer] for layer in self._matrices]

    def _filled(self, *shape: int) -> Tensor:
        return torch.randn(shape[-1]).to(self._dtype).expand(shape).clone()

    def layers(self, lengths: Sequence[int]) -> None:
        """The linear layers but the last."""
        tokens = PREFIX_TOKENS + sum(lengths)
        inputs = [self._filled(tokens, matrix.shape[1]) for matrix in self._matrices[0]]
        for linears in self._linears[:-1]:
            for rows, linear in zip(inputs, linears, strict=True):
                linear(rows)

    def layers_by_mm(self, lengths: Sequence[int]) -> None:
        """The linear layers but the last, by `torch.mm`."""
        tokens = PREFIX_TOKENS + sum(lengths)
        inputs = [self._filled(tokens, matrix.shape[1]) for matrix in self._matrices[0]]
        outputs = [
            torch.empty(tokens, len(matrix), dtype=self._dtype) for matrix in self._matrices[0]
        ]
        for matrices in self._matrices[:-1]:
            for rows, matrix, output in zip(inputs, matrices, outputs, strict=True):
                torch.mm(rows, matrix.t(), out=output)

    def attention(self, lengths: Sequence[int]) -> None:
        """Queries times keys, and weights times values, of the prefix and each document."""
        sequences = [(0, PREFIX_TOKENS), *((PREFIX_TOKENS, length) for length in lengths)]
        shared = self._arch.heads // self._arch.kv_heads
        heads, head_dim = self._arch.kv_heads, self._arch.head_dim
        queries = self._filled(heads, _BLOCK * shared, head_dim)
        keys = self._filled(heads, PREFIX_TOKENS + max(lengths), head_dim)
        for _ in range(self._arch.layers - 1):
            for context, length in sequences:
                for start in range(0, length, _BLOCK):
                    stop = min(start + _BLOCK, length)
                    visible = keys[:, : context + stop]
                    scores = torch.bmm(
                        queries[:, : (stop - start) * shared], visible.transpose(1, 2)
                    )
                    torch.bmm(scores, visible)


if __name__ == "__main__":
    main()
