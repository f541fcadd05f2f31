"""Speed of the native engine's forward pass on a GPU, in one run of less than eight minutes.

    PYTHONPATH=src python bench/gpu.py [--models 0.6B 4B] [--out FILE]
    PYTHONPATH=src python bench/gpu.py --device cpu --small      # checks the script itself

Needs torch (2.11 or later, for attention in one call) and nothing else: no download, no
tokenizer. Weights and token ids are random. transformers and sentence-transformers are measured
in the same run where they are installed. Everything is in this process: no server, no pipe.

Prints, and writes to --out as JSON:

- the device, the versions, and whether torch's variable-length attention is used;
- the device's matrix speed: the fastest of the model's own products and of a large square one;
- parity: logits against a plain float32 implementation (and transformers), relative to their
  spread; exit status 1 when the error is larger than 5 % of it;
- documents/s, tokens/s and the share of the matrix speed, for documents of 100 and 500 tokens,
  by size of the batch; and the same with one attention call for each length;
- where the time of one batch goes, by kernel;
- documents/s of transformers (as on the model card, and with the last logits only) and of
  sentence-transformers.

A request is a prefix of 67 tokens and 100 documents, each with the 12 tokens that end a prompt.
"Pair tokens" count the prefix for each document; the engine computes it once.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from gpu_models import (
    SHAPES,
    Pair,
    SentenceTransformersModel,
    Shape,
    TransformersModel,
    architecture_of,
    native_weights,
    random_tensors,
    reference_logits,
    token_batch,
)
from rankd.engines.native.model import Qwen3Model
from rankd.engines.native.packed_attention import find_varlen_attention

PREFIX_TOKENS, END_TOKENS, DOCUMENTS = 67, 12, 100

# Largest difference from float32 that is accepted, relative to the spread of the logits.
MAX_ERROR = 0.05


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        lengths: tokens of the documents.
        batch_tokens: sizes of the engine's batches; the one in `default_batch` is used for the
            comparisons.
        seconds: time of each measurement.
        square: rows and columns of the large product.
        budget: seconds after which what is optional is left out.
    """

    lengths: tuple[int, ...] = (100, 500)
    batch_tokens: tuple[int, ...] = (1024, 4096, 16_384, 65_536)
    default_batch: int = 16_384
    seconds: float = 2.0
    square: int = 8192
    budget: float = 420.0
    peer_batch: int = 32


SMALL = Plan(
    lengths=(20,),
    batch_tokens=(128, 512),
    default_batch=512,
    seconds=0.02,
    square=256,
    peer_batch=4,
)


@dataclass
class Bench:
    """One run: its settings and its results so far."""

    device: torch.device
    dtype: torch.dtype
    plan: Plan
    out: Path | None
    results: dict[str, Any] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    def optional(self, results: dict[str, Any], name: str, step: Callable[[], Any]) -> None:
        """Add the step's result, or why there is none; a failure does not end the run."""
        if time.perf_counter() - self.began > self.plan.budget:
            results[name] = "left out: no time"
        else:
            try:
                results[name] = step()
            except ImportError as problem:
                results[name] = f"not installed: {problem}"
            except Exception as problem:  # Of another library, or out of memory.
                results[name] = f"failed: {type(problem).__name__}: {problem}"
        print(f"{name}: {_line(results[name])}", flush=True)
        self.save()

    def save(self) -> None:
        if self.out:
            self.out.write_text(json.dumps(self.results, indent=1) + "\n")


def main() -> int:
    options = _options()
    device = torch.device(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = getattr(torch, options.dtype)
    bench = Bench(device, dtype, SMALL if options.small else Plan(), options.out)
    bench.results["setting"] = _setting(bench)
    print(_line(bench.results["setting"]))
    for name in ["small"] if options.small else options.models:
        print(f"\n# {name}")
        bench.results[name] = {}
        _measure_model(bench, SHAPES[name], bench.results[name])
    bench.results["seconds"] = round(time.perf_counter() - bench.began, 1)
    bench.save()
    print(f"\n{bench.results['seconds']} s")
    return _status(bench.results)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["0.6B", "4B"], choices=["0.6B", "4B", "8B"])
    parser.add_argument("--device", help="default: cuda if there is one, else cpu")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--small", action="store_true", help="a tiny model: checks the script")
    parser.add_argument("--out", type=Path, help="file for the results, JSON")
    return parser.parse_args()


def _setting(bench: Bench) -> dict[str, Any]:
    setting = {
        "device": str(bench.device),
        "dtype": str(bench.dtype),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    if bench.device.type == "cuda":
        properties = torch.cuda.get_device_properties(bench.device)
        setting |= {
            "name": properties.name,
            "memory_gib": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
        }
    return setting


def _measure_model(bench: Bench, shape: Shape, results: dict[str, Any]) -> None:
    tensors = random_tensors(shape, bench.device, bench.dtype)
    weights = native_weights(shape, tensors, bench.dtype)
    varlen = find_varlen_attention(bench.device, bench.dtype, architecture_of(shape))
    results["attention in one call"] = varlen is not None
    print(f"attention in one call: {varlen is not None}")
    results["parity"] = _parity(
        shape, tensors, Qwen3Model(weights, architecture_of(shape), varlen=varlen)
    )
    print(f"parity: {_line(results['parity'])}")
    results["matrix speed"] = _matrix_speed(bench, shape)
    print(f"matrix speed: {_line(results['matrix speed'])}")
    # Keeps the newest prefix only, so each request's is computed, and once.
    model = Qwen3Model(weights, architecture_of(shape), 0, varlen=varlen)
    segments = Qwen3Model(weights, architecture_of(shape), 0)
    best, default = results["matrix speed"]["best_tflops"], bench.plan.default_batch
    for length in bench.plan.lengths:
        for size in bench.plan.batch_tokens:
            row = f"{length} tokens, batches of {size}"
            bench.optional(results, row, partial(_rate, bench, shape, model, length, size, best))
        if varlen is not None:
            row = f"{length} tokens, batches of {default}, one call for each length"
            step = partial(_rate, bench, shape, segments, length, default, best)
            bench.optional(results, row, step)
    bench.optional(results, "time by kernel", partial(_profile, bench, shape, model))
    _measure_peers(bench, shape, tensors, results)


def _measure_peers(
    bench: Bench, shape: Shape, tensors: dict[str, torch.Tensor], results: dict[str, Any]
) -> None:
    """Other libraries on the same weights and pairs."""
    built: list[TransformersModel] = []

    def transformers() -> dict[str, Any]:
        model = TransformersModel(shape, tensors, bench.dtype)
        built.append(model)
        pairs = _parity_pairs(shape)
        found: dict[str, Any] = {"version": model.version}
        found["parity"] = _errors(model.score(pairs), reference_logits(shape, tensors, pairs))
        for length in bench.plan.lengths:
            for name, all_logits in (("last logits", False), ("model card", True)):
                score = partial(model.score, all_logits=all_logits)
                found[f"{name}, {length} tokens"] = _peer_rate(bench, shape, length, score)
        return found

    def sentence_transformers() -> dict[str, Any]:
        if not built:
            raise ImportError("transformers")
        model = SentenceTransformersModel(built[0], bench.dtype, shape.vocab_size)
        rates = {
            f"{length} tokens": _peer_rate(bench, shape, length, model.score)
            for length in bench.plan.lengths
        }
        return {"version": model.version, **rates}

    bench.optional(results, "transformers", transformers)
    bench.optional(results, "sentence-transformers", sentence_transformers)


def _parity_pairs(shape: Shape) -> list[Pair]:
    """Two requests, with documents of 1 to 700 tokens, some of equal length."""
    dice = random.Random(5)
    lengths = (1, 2, 17, 40, 40, 129, 300, 700)
    return [
        Pair(prefix, _ids(dice, length, shape.vocab_size))
        for prefix in (_ids(dice, size, shape.vocab_size) for size in (PREFIX_TOKENS, 150))
        for length in lengths
    ]


def _parity(
    shape: Shape, tensors: dict[str, torch.Tensor], model: Qwen3Model
) -> dict[str, dict[str, float]]:
    """Our logits against float32: all in one batch, again with cached prefixes, and alone."""
    pairs = _parity_pairs(shape)
    expected = reference_logits(shape, tensors, pairs)
    together = model.score(token_batch(pairs))
    cached = model.score(token_batch(pairs))
    alone = [model.score(token_batch([pair]))[0] for pair in pairs]
    parity = {"in one batch": _errors(together, expected)}
    parity["with cached prefixes"] = _errors(cached, expected)
    parity["alone, from one batch"] = _errors(alone, together)
    if shape.hidden_size <= SHAPES["0.6B"].hidden_size:  # Larger ones need much memory.
        exact = Qwen3Model(native_weights(shape, tensors, torch.float32), architecture_of(shape))
        parity["in float32"] = _errors(exact.score(token_batch(pairs)), expected)
    return parity


def _errors(found: Sequence[float], expected: Sequence[float]) -> dict[str, float]:
    apart = [abs(one - other) for one, other in zip(found, expected, strict=True)]
    return {
        "spread": max(expected) - min(expected),
        "mean": statistics.fmean(apart),
        "max": max(apart),
        "max_of_spread": max(apart) / (max(expected) - min(expected)),
        "same_order": _agreement(found, expected),
    }


def _agreement(found: Sequence[float], expected: Sequence[float]) -> float:
    """Share of the pairs of documents that both order the same way."""
    agree = [
        (found[one] < found[other]) == (expected[one] < expected[other])
        for one in range(len(found))
        for other in range(one)
    ]
    return statistics.fmean(agree)


def _matrix_speed(bench: Bench, shape: Shape) -> dict[str, Any]:
    """Speed of products, in TFLOP/s: of each of the model's shapes, and of a large square one."""
    rows = bench.plan.default_batch
    sizes = [(rows, *product) for product in shape.products]
    sizes.append((bench.plan.square,) * 3)
    speeds, operations, seconds = {}, [], []
    for tokens, outputs, inputs in sizes:
        left = torch.randn(tokens, inputs, device=bench.device).to(bench.dtype)
        right = torch.randn(outputs, inputs, device=bench.device).to(bench.dtype)
        out = torch.empty(tokens, outputs, device=bench.device, dtype=bench.dtype)
        operations.append(2 * tokens * outputs * inputs)
        seconds.append(_seconds_each(bench, partial(torch.mm, left, right.T, out=out), 0.3))
        speeds[f"{tokens} x {inputs} x {outputs}"] = operations[-1] / seconds[-1] / 1e12
    return {
        "best_tflops": max(speeds.values()),
        "products_alone_tflops": sum(operations[:-1]) / sum(seconds[:-1]) / 1e12,
        "tflops": speeds,
    }


def _seconds_each(bench: Bench, call: Callable[[], Any], share: float = 1.0) -> float:
    """Seconds of one call, over as many as fit in the time of a measurement."""
    call()
    _wait(bench)
    count, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < share * bench.plan.seconds:
        for _ in range(max(1, count)):  # Twice as many each time: few waits.
            call()
        count += max(1, count)
        _wait(bench)
    return spent / count


def _wait(bench: Bench) -> None:
    if bench.device.type == "cuda":
        torch.cuda.synchronize(bench.device)


def _requests(vocabulary: int, tokens: int, seed: int) -> Iterator[list[Pair]]:
    """Requests without end. Lengths of documents: standard deviation a third of the mean."""
    dice = random.Random(seed)
    while True:
        prefix = _ids(dice, PREFIX_TOKENS, vocabulary)
        lengths = [max(4, round(dice.gauss(tokens, tokens / 3))) for _ in range(DOCUMENTS)]
        yield [Pair(prefix, _ids(dice, length + END_TOKENS, vocabulary)) for length in lengths]


def _ids(dice: random.Random, count: int, vocabulary: int) -> tuple[int, ...]:
    return tuple(dice.choices(range(vocabulary), k=count))


def _batches(requests: Iterator[list[Pair]], batch_tokens: int) -> Iterator[list[Pair]]:
    """Pairs of consecutive requests, as many as have `batch_tokens` tokens to compute."""
    batch: list[Pair] = []
    room = batch_tokens
    for request in requests:
        room -= PREFIX_TOKENS
        for pair in request:
            if batch and room < len(pair.suffix):
                yield batch
                batch, room = [], batch_tokens - PREFIX_TOKENS
            batch.append(pair)
            room -= len(pair.suffix)


def _rate(
    bench: Bench, shape: Shape, model: Qwen3Model, tokens: int, batch_tokens: int, best: float
) -> dict[str, float]:
    """Documents/s of full batches, whose prefixes are not in the cache."""
    made = _batches(_requests(shape.vocab_size, tokens, seed=batch_tokens), batch_tokens)
    batches = list(islice(made, max(2, 2 * bench.plan.default_batch // batch_tokens)))
    packed = [token_batch(batch) for batch in batches]
    computed = _computed_tokens(batches)
    for batch in packed[:2]:
        model.score(batch)
    seconds, documents, pair_tokens, operations = 0.0, 0, 0, 0.0
    while seconds < bench.plan.seconds:
        began = time.perf_counter()
        for batch in packed:
            model.score(batch)
        seconds += time.perf_counter() - began
        documents += sum(map(len, batches))
        pair_tokens += sum(len(pair.ids) for pairs in batches for pair in pairs)
        operations += sum(map(shape.flops, computed, map(len, batches)))
    tflops = operations / seconds / 1e12
    return {
        "documents_per_s": documents / seconds,
        "pair_tokens_per_s": pair_tokens / seconds,
        "tflops": tflops,
        "share_of_matrix_speed": tflops / best,
    }


def _computed_tokens(batches: Sequence[Sequence[Pair]]) -> list[int]:
    """Tokens that each batch computes: a prefix once, and not if the last batch ended with it."""
    computed = []
    last: tuple[int, ...] | None = None
    for batch in batches:
        new = {pair.prefix for pair in batch} - {last}
        computed.append(sum(map(len, new)) + sum(len(pair.suffix) for pair in batch))
        last = batch[-1].prefix
    return computed


def _profile(bench: Bench, shape: Shape, model: Qwen3Model) -> dict[str, Any]:
    """Milliseconds by kernel (on a CPU by operation) of one batch, and its wall time."""
    requests = _requests(shape.vocab_size, bench.plan.lengths[0], seed=1)
    batches = [token_batch(one) for one in islice(_batches(requests, bench.plan.default_batch), 3)]
    model.score(batches[0])
    began = time.perf_counter()
    model.score(batches[1])
    wall = time.perf_counter() - began
    on_gpu = bench.device.type == "cuda"
    activities = [torch.profiler.ProfilerActivity.CPU]
    if on_gpu:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        model.score(batches[2])
    spent: dict[str, float] = {}
    for event in profile.key_averages():
        if on_gpu and event.device_type.name == "CUDA":
            spent[event.key[:90]] = event.self_device_time_total / 1e3
        elif not on_gpu:
            spent[event.key[:90]] = event.self_cpu_time_total / 1e3
    slowest = sorted(spent.items(), key=itemgetter(1), reverse=True)
    return {"wall_ms": wall * 1e3, "kernels_ms": sum(spent.values()), "slowest": dict(slowest[:14])}


def _peer_rate(
    bench: Bench, shape: Shape, tokens: int, score: Callable[[list[Pair]], list[float]]
) -> float:
    """Documents/s of another library, in batches of 32 of documents sorted by length."""
    documents, seconds = 0, 0.0
    size = bench.plan.peer_batch
    for request in _requests(shape.vocab_size, tokens, seed=3):
        pairs = sorted(request, key=lambda pair: len(pair.suffix))
        batches = [pairs[start : start + size] for start in range(0, len(pairs), size)]
        if not documents:
            score(batches[-1])  # Warms up.
        began = time.perf_counter()
        for batch in batches:
            score(batch)
        seconds += time.perf_counter() - began
        documents += len(pairs)
        if seconds > bench.plan.seconds:
            break
    return documents / seconds


def _line(result: Any) -> str:
    """A result in one line, with four significant digits."""
    if isinstance(result, dict):
        return ", ".join(f"{key}: {_line(value)}" for key, value in result.items())
    return f"{result:.4g}" if isinstance(result, float) else str(result)


def _status(results: dict[str, Any]) -> int:
    """1 when the logits of a model are wrong; not `>`, so that NaN is wrong as well."""
    parities = [
        one["parity"] for one in results.values() if isinstance(one, dict) and "parity" in one
    ]
    right = all(one["in one batch"]["max_of_spread"] <= MAX_ERROR for one in parities)
    if not right:
        print(f"the logits differ by more than {MAX_ERROR:.0%} of their spread", file=sys.stderr)
    return 0 if right and parities else 1


if __name__ == "__main__":
    sys.exit(main())
