"""How cost grows: with documents, with their length, with the prefix, and with clients.

    python bench/scaling.py [--rounds 2] [--seconds 4] [--plot docs/images/scaling.svg]

Runs the native engine in float32 on a small random model (4 layers of width 256, 3 million
parameters without embeddings), because the shape of Qwen3-Reranker-0.6B would take hours. That one
costs 140 times as much a token, and attention is a smaller share of it: its curve bends later. CPU
seconds are the least of all rounds. Each series is compared with a + b tokens + c attended pairs,
fitted to all of them. Sharing is compared with N(P+L)/(P+NL): the same documents, each with a
prefix of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine import ANSWERS
from server import DOCUMENTS, ROOT, Load, cpu_seconds, measure

sys.path.insert(0, str(ROOT / "tests"))

from rankd.config.settings import Settings
from rankd.engines.native import NativeEngine, open_engine
from rankd.models.checkpoint import locate
from rankd.types import Prompt
from support.checkpoints import make_checkpoint
from support.servers import serving

SHAPE: dict[str, int] = {
    **{"hidden": 256, "layers": 4, "heads": 4, "kv_heads": 2, "head_dim": 64, "mlp": 768}
}
MAX_TOKENS = 12_000


@dataclass(frozen=True)
class Size:
    """One request: N documents of L tokens each, after a prefix of P tokens."""

    documents: int
    tokens: int
    prefix: int

    @property
    def computed(self) -> int:
        """Tokens that go through the model when the prefix is shared."""
        return self.prefix + self.documents * self.tokens

    @property
    def attended(self) -> float:
        """Pairs of a token and one before it, the prefix once."""
        after = self.tokens * self.prefix + self.tokens**2 / 2
        return self.prefix**2 / 2 + self.documents * after

    @property
    def gain(self) -> float:
        """What sharing the prefix should save, by tokens."""
        return self.documents * (self.prefix + self.tokens) / self.computed


@dataclass
class Point:
    """The least CPU and wall seconds of a size, and the worker's peak memory in MiB.

    Attributes:
        separate: CPU seconds when each document has a prefix of its own; 0: not measured.
    """

    size: Size
    cpu: float = float("inf")
    wall: float = float("inf")
    memory: float = 0.0
    separate: float = 0.0


SERIES = {
    "documents": [Size(count, 30, 67) for count in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)],
    "tokens a document": [
        Size(2, length, 67) for length in (10, 30, 100, 300, 1000, 2000, 4000, 8000)
    ],
    "tokens of the prefix": [Size(20, 90, length) for length in (50, 100, 200, 500, 1000, 2000)],
}
# Larger requests are not measured without sharing.
MAX_SEPARATE_TOKENS = 45_000

CLIENTS = (1, 2, 4, 8, 16, 32, 64)


def prompts(size: Size, rng: random.Random, *, shared: bool) -> list[Prompt]:
    def ids(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(151_000) for _ in range(count))

    prefix = ids(size.prefix)
    return [
        Prompt(prefix if shared else ids(size.prefix), ids(size.tokens))
        for _ in range(size.documents)
    ]


def peak_memory(pid: int) -> float:
    """The largest resident set since the last call, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return peak


async def timed(engine: NativeEngine, batch: Sequence[Prompt]) -> tuple[float, float]:
    """CPU seconds of the worker, and wall seconds; in batches of the engine's size."""
    cpu, wall = cpu_seconds(engine.pid), time.perf_counter()
    rest = list(batch)
    while rest:
        count, tokens = 0, 0
        while count < len(rest) and (not count or tokens < engine.info.batch_tokens):
            tokens += len(rest[count].suffix)
            count += 1
        await engine.score(rest[:count])
        rest = rest[count:]
    return cpu_seconds(engine.pid) - cpu, time.perf_counter() - wall


async def measure_engine(model: str, rounds: int) -> dict[str, list[Point]]:
    settings = Settings(device="cpu", dtype="float32", max_tokens=MAX_TOKENS)
    rng = random.Random(5)
    series = {name: [Point(size) for size in sizes] for name, sizes in SERIES.items()}
    async with open_engine(locate(model), ANSWERS, settings) as engine:
        await timed(engine, prompts(Size(20, 90, 67), rng, shared=True))
        for number in range(rounds):
            for name, points in series.items():
                print(f"round {number + 1}: {name} ...", file=sys.stderr, flush=True)
                for point in points:
                    await _measure_point(engine, point, rng)
    return series


async def _measure_point(engine: NativeEngine, point: Point, rng: random.Random) -> None:
    peak_memory(engine.pid)
    cpu, wall = await timed(engine, prompts(point.size, rng, shared=True))
    point.cpu, point.wall = min(point.cpu, cpu), min(point.wall, wall)
    point.memory = max(point.memory, peak_memory(engine.pid))
    size = point.size
    if size.documents > 1 and size.documents * (size.prefix + size.tokens) <= MAX_SEPARATE_TOKENS:
        cpu, _ = await timed(engine, prompts(size, rng, shared=False))
        point.separate = min(point.separate or cpu, cpu)


def measure_clients(model: str, seconds: float) -> list[Load]:
    flags = ["--self-check", "off", "--cache-mb", "0", "--no-access-log", "--dtype", "float32"]
    with serving(model, *flags) as server:
        return [
            asyncio.run(measure(server.url, server.process.pid, clients, seconds))
            for clients in CLIENTS
        ]


def fitted(series: dict[str, list[Point]]) -> np.ndarray[Any, Any]:
    """Least squares of the relative error: seconds a request, a token, an attended pair."""
    points = [point for row in series.values() for point in row if point.cpu > 0]
    cpu = np.array([point.cpu for point in points])
    terms = np.array([_terms(point.size) for point in points])
    fit: np.ndarray[Any, Any] = np.linalg.lstsq(
        terms / cpu[:, None], np.ones(len(cpu)), rcond=None
    )[0]
    return fit


def _terms(size: Size) -> list[float]:
    return [1.0, size.computed, size.attended]


def report(series: dict[str, list[Point]], loads: list[Load], fit: np.ndarray[Any, Any]) -> None:
    a, b, c = fit
    print(f"CPU s = {a * 1e3:.1f} ms + {b * 1e6:.1f} us a token + {c * 1e9:.2f} ns a pair\n")
    print("| N | L | P | CPU s | fit | wall s | MiB | sharing gains | N(P+L)/(P+NL) |")
    print("|---|---|---|---|---|---|---|---|---|")
    for points in series.values():
        for point in points:
            size = point.size
            gain = f"{point.separate / point.cpu:.2f}" if point.separate else ""
            print(
                f"| {size.documents} | {size.tokens} | {size.prefix} | {point.cpu:.2f} "
                f"| {float(np.dot(fit, _terms(size))):.2f} | {point.wall:.2f} "
                f"| {point.memory:.0f} | {gain} | {size.gain:.2f} |"
            )
    print(f"\n{DOCUMENTS} documents of about 90 tokens a request, over HTTP:\n")
    print("| clients | documents/s | requests/s | p50 ms | p95 ms | CPU us/document |")
    print("|---|---|---|---|---|---|")
    for load in loads:
        print(load.row())


def plot(series: dict[str, list[Point]], loads: list[Load], fit: Any, file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.fonttype"] = "none"
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 7))
    keys = {"documents": "documents", "tokens a document": "tokens"}
    for axis, (name, points) in zip(axes.flat, series.items(), strict=False):
        x = [getattr(point.size, keys.get(name, "prefix")) for point in points]
        axis.loglog(x, [point.cpu for point in points], "o", label="shared prefix")
        axis.loglog(x, [float(np.dot(fit, _terms(point.size))) for point in points], label="fit")
        separate = [(at, point.separate) for at, point in zip(x, points, strict=True)]
        separate = [row for row in separate if row[1]]
        axis.loglog(*zip(*separate, strict=True), "x", label="a prefix for each document")
        axis.set(xlabel=name, ylabel="CPU seconds a request")
        axis.legend()
    axis = axes.flat[3]
    axis.semilogx(CLIENTS, [load.cpu / load.documents * 1e3 for load in loads], "o-")
    axis.set(xlabel="clients", ylabel="CPU ms a document", ylim=(0, None))
    latency = axis.twinx()
    latency.loglog(CLIENTS, [load.percentile(0.5) for load in loads], "x--", color="tab:red")
    latency.set_ylabel("p50 ms (crosses)")
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="default: the small random one")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each number of clients")
    parser.add_argument("--plot", type=Path, help="write the plots to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rankd-bench-") as folder:
        model = options.model or str(
            make_checkpoint(Path(folder) / "model", **SHAPE)  # type: ignore[arg-type]
        )
        series = asyncio.run(measure_engine(model, options.rounds))
        loads = measure_clients(model, options.seconds)
    fit = fitted(series)
    report(series, loads, fit)
    if options.plot:
        plot(series, loads, fit, options.plot)


if __name__ == "__main__":
    main()
