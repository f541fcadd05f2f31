"""Simulates fronts before 1 to 1,000 replicas: balance, waiting, kept prefixes, deaths. No Ray.

    python bench/fleet.py                         # the tables of docs/scaling.md, some minutes
    python bench/fleet.py --picture docs/images/fleet.png
    python bench/fleet.py --replicas 4 --tokens-per-second 30000 --load 0.9

Each front is rankd's own scheduler, on an event loop whose clock jumps to the next event. Only the
replicas are made up: a batch takes `--overhead-ms` and its tokens divided by
`--tokens-per-second`, one batch at a time. Measure both on one machine (docs/scaling.md). Requests
arrive at random, at `--load` of what all replicas can compute.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import selectors
import statistics
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankd.engines.base import EngineInfo, Slots
from rankd.errors import EngineDied, EngineRestarting
from rankd.ranking.scheduler import Scheduler
from rankd.types import Prompt

# As a replica of vLLM has them.
BATCH_TOKENS = 8192
SLOTS = 2

# Prefixes that a replica keeps, as the native engine does.
KEPT_PREFIXES = 16

# Queries: their number, and how much more often the first ones come (Zipf).
QUERIES, ZIPF = 2000, 1.0
PREFIX_TOKENS = 80
DOCUMENT_TOKENS = (200, 300, 500, 1000)
DOCUMENTS = (3, 5, 10, 20, 30)

# Requests of a run at least, and the share of a run at its beginning that is not measured.
MIN_REQUESTS = 1500
WARM_UP = 0.3

# The load of a replica that a bounded hash allows, in shares of the mean.
BOUND = 1.25


class _Selector(selectors.DefaultSelector):
    """Does not wait: the clock jumps."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("nothing is left to happen")
        self.now += max(timeout, 0.0)
        return super().select(0)


@contextmanager
def virtual_time() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that does not wait, and whose time everybody sees."""
    selector = _Selector()
    loop = asyncio.SelectorEventLoop(selector)
    real = time.monotonic
    loop.time = time.monotonic = lambda: selector.now  # type: ignore[method-assign]
    try:
        yield loop
    finally:
        time.monotonic = real
        loop.close()


@dataclass(eq=False)
class Replica:
    """Computes one batch after another.

    Attributes:
        free_at: when it has computed all that it has.
        busy: seconds in which it computed.
        down_until: it takes no batches before.
        hits: batches whose first prefix was kept.
    """

    number: int
    free_at: float = 0.0
    busy: float = 0.0
    tokens: int = 0
    batches: int = 0
    hits: int = 0
    down_until: float = 0.0
    kept: OrderedDict[int, None] = field(default_factory=OrderedDict)
    running: set[asyncio.Future[None]] = field(default_factory=set)

    def look_up(self, prefix: int) -> None:
        self.batches += 1
        self.hits += prefix in self.kept
        self.kept[prefix] = None
        self.kept.move_to_end(prefix)
        if len(self.kept) > KEPT_PREFIXES:
            self.kept.popitem(last=False)


# A front's own view: outstanding tokens by replica.
Outstanding = dict[Replica, int]
Router = Callable[[Sequence[Replica], Outstanding, int, random.Random], Replica]


def least(able: Sequence[Replica], outstanding: Outstanding, key: int, _: random.Random) -> Replica:
    """The fewest outstanding tokens; of several the first."""
    return min(able, key=outstanding.__getitem__)


def least_shuffled(
    able: Sequence[Replica], outstanding: Outstanding, key: int, dice: random.Random
) -> Replica:
    """The fewest outstanding tokens; of several any."""
    return min(able, key=lambda one: (outstanding[one], dice.random()))


def two_choices(
    able: Sequence[Replica], outstanding: Outstanding, key: int, dice: random.Random
) -> Replica:
    """The better of two."""
    return min(dice.choices(able, k=2), key=outstanding.__getitem__)


def bounded_hash(
    able: Sequence[Replica], outstanding: Outstanding, key: int, _: random.Random
) -> Replica:
    """The query's own replica, or the next one that has not too much."""
    limit = BOUND * (sum(outstanding.values()) + BATCH_TOKENS) / len(able)
    start = key * 2654435761 % len(able)
    for step in range(len(able)):
        replica = able[(start + step) % len(able)]
        if outstanding[replica] + BATCH_TOKENS <= max(limit, BATCH_TOKENS):
            return replica
    return min(able, key=outstanding.__getitem__)


ROUTERS: dict[str, Router] = {
    "least tokens": least,
    "least, ties at random": least_shuffled,
    "power of two": two_choices,
    "bounded hash": bounded_hash,
}


class FleetEngine:
    """The engine of one front."""

    def __init__(self, replicas: Sequence[Replica], router: Router, options: Any) -> None:
        self.info = EngineInfo(
            *("fleet", "simulated", "0", "none", "none", 8192), batch_tokens=BATCH_TOKENS
        )
        self.slots = Slots(0, eager=0)
        self._replicas = replicas
        self._router = router
        self._options = options
        self._outstanding: Outstanding = dict.fromkeys(replicas, 0)
        self._dice = random.Random(options.seed)
        self.retries = 0

    async def score(self, batch: Sequence[Prompt]) -> list[float]:
        prefixes = {id(prompt.prefix): len(prompt.prefix) for prompt in batch}
        tokens = sum(prefixes.values()) + sum(len(prompt.suffix) for prompt in batch)
        key = batch[0].prefix[0]
        now = time.monotonic()
        able = [one for one in self._replicas if one.down_until <= now]
        if not able:
            raise EngineRestarting("no replica")
        replica = self._router(able, self._outstanding, key, self._dice)
        self._outstanding[replica] += tokens
        try:
            await self._compute(replica, tokens, key)
        except ConnectionError:
            self.retries += 1
            raise EngineDied("the replica is gone") from None
        finally:
            self._outstanding[replica] -= tokens
        return [0.0] * len(batch)

    async def check(self) -> None:
        """Always succeeds."""

    async def _compute(self, replica: Replica, tokens: int, key: int) -> None:
        seconds = self._options.overhead_ms / 1000 + tokens / self._options.tokens_per_second
        loop = asyncio.get_running_loop()
        began = max(replica.free_at, loop.time())
        replica.free_at = began + seconds
        replica.look_up(key)
        done: asyncio.Future[None] = loop.create_future()
        replica.running.add(done)
        timer = loop.call_at(replica.free_at, _finish, done)
        try:
            await done
            replica.busy += seconds
            replica.tokens += tokens
        finally:
            timer.cancel()
            replica.running.discard(done)


def _fail(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_exception(ConnectionError())


def _finish(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


@dataclass
class Figures:
    """What one run showed.

    Attributes:
        lost: requests that failed.
    """

    documents: int = 0
    began: float = 0.0
    seconds: float = 0.0
    busy: float = 0.0
    tokens: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    lost: int = 0
    retries: int = 0
    deaths: int = 0


class Fleet:
    """Fronts, replicas and clients."""

    def __init__(self, replicas: int, fronts: int, router: Router, options: Any) -> None:
        self.replicas = [Replica(number) for number in range(replicas)]
        self.engines = [FleetEngine(self.replicas, router, options) for _ in range(fronts)]
        self.schedulers = [Scheduler(engine, patience=300) for engine in self.engines]
        self.figures = Figures()
        self._options = options
        self._dice = random.Random(options.seed)
        weights = [1 / (rank + 1) ** ZIPF for rank in range(QUERIES)]
        self._queries = list(itertools.accumulate(weights))

    def _count_slots(self) -> None:
        count = sum(one.down_until <= time.monotonic() for one in self.replicas)
        for engine in self.engines:
            engine.slots.set(SLOTS * count, count, count)

    def _request(self) -> list[Prompt]:
        [query] = self._dice.choices(range(QUERIES), cum_weights=self._queries)
        prefix = (query, *([0] * (PREFIX_TOKENS - 1)))
        count = self._dice.choice(DOCUMENTS)
        lengths = self._dice.choices(DOCUMENT_TOKENS, k=count)
        return [Prompt(prefix, _suffix(length)) for length in lengths]

    async def run(self) -> Figures:
        """Send requests at random times, each to a front at random."""
        self._count_slots()
        speed = self._options.tokens_per_second * len(self.replicas) * self._options.load
        mean = statistics.mean(DOCUMENTS) * statistics.mean(DOCUMENT_TOKENS) + PREFIX_TOKENS
        # A batch's overhead takes of the speed, too.
        overhead = self._options.overhead_ms / 1000 * self._options.tokens_per_second / BATCH_TOKENS
        rate = speed / mean / (1 + overhead)
        requests = max(MIN_REQUESTS, int(self._options.seconds * rate))
        killing = asyncio.create_task(self._kill())
        async with asyncio.TaskGroup() as group:
            for number in range(requests):
                if number == int(WARM_UP * requests):
                    self._begin()
                await asyncio.sleep(self._dice.expovariate(rate))
                group.create_task(self._ask(self._request()))
            self._end()
        killing.cancel()
        self.figures.retries = sum(engine.retries for engine in self.engines)
        return self.figures

    def _begin(self) -> None:
        """From here on it counts."""
        self.figures.began = time.monotonic()
        for replica in self.replicas:
            replica.busy, replica.tokens, replica.batches, replica.hits = 0.0, 0, 0, 0

    def _end(self) -> None:
        """The last request is sent; what is computed later does not count."""
        self.figures.seconds = time.monotonic() - self.figures.began
        self.figures.busy = sum(one.busy for one in self.replicas) / len(self.replicas)
        self.figures.tokens = [one.tokens for one in self.replicas]

    async def _ask(self, prompts: list[Prompt]) -> None:
        began = time.monotonic()
        try:
            await self._dice.choice(self.schedulers).score(prompts)
        except Exception:
            self.figures.lost += 1
            return
        if self.figures.began and began >= self.figures.began:
            self.figures.waits.append(time.monotonic() - began)
            self.figures.documents += len(prompts)

    async def _kill(self) -> None:
        """Replicas die at random, and are back after a while."""
        while self._options.kill_every:
            await asyncio.sleep(self._dice.expovariate(1 / self._options.kill_every))
            replica = self._dice.choice(self.replicas)
            replica.down_until = time.monotonic() + self._options.restart_seconds
            replica.free_at = replica.down_until
            replica.kept.clear()
            self.figures.deaths += 1
            self._count_slots()
            asyncio.get_running_loop().call_at(replica.down_until, self._count_slots)
            for done in list(replica.running):
                _fail(done)


_suffixes: dict[int, tuple[int, ...]] = {}


def _suffix(length: int) -> tuple[int, ...]:
    return _suffixes.setdefault(length, tuple([1] * length))


def simulate(replicas: int, fronts: int, router: str, options: Any) -> dict[str, Any]:
    """One row of a table."""
    with virtual_time() as loop:
        fleet = Fleet(replicas, fronts, ROUTERS[router], options)
        figures = loop.run_until_complete(fleet.run())
    waits = sorted(figures.waits)
    batches = sum(one.batches for one in fleet.replicas)
    return {
        "replicas": replicas,
        "fronts": fronts,
        "router": router,
        "documents/s": round(figures.documents / figures.seconds),
        "busy": figures.busy / figures.seconds,
        "fullest/mean": max(figures.tokens) / statistics.mean(figures.tokens),
        "p50 ms": 1000 * waits[len(waits) // 2],
        "p99 ms": 1000 * waits[int(len(waits) * 0.99)],
        "prefix hits": sum(one.hits for one in fleet.replicas) / batches,
        "deaths": figures.deaths,
        "retries": figures.retries,
        "lost": figures.lost,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """As Markdown."""
    names = list(rows[0])
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    lines += ["| " + " | ".join(_shown(name, row[name]) for name in names) + " |" for row in rows]
    return "\n".join(lines)


def _shown(name: str, value: Any) -> str:
    if name in ("busy", "prefix hits"):
        return f"{value:.0%}"
    if isinstance(value, float):
        return f"{value:.2f}" if name == "fullest/mean" else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def draw(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """p99, balance and kept prefixes by the number of replicas."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(10, 3), layout="constrained")
    shown = (("p99 ms", "p99 of a request, ms"), ("fullest/mean", "tokens, fullest / mean"))
    for axis, (name, title) in zip(
        axes, (*shown, ("prefix hits", "batches with a kept prefix")), strict=True
    ):
        for router in ROUTERS:
            of_router = [row for row in rows if row["router"] == router]
            axis.plot(
                [row["replicas"] for row in of_router],
                [row[name] for row in of_router],
                marker=".",
                label=router,
            )
        axis.set(xscale="log", title=title, xlabel="replicas", ylim=(0, None))
    axes[0].legend(fontsize="small")
    figure.savefig(file, dpi=80)


def fronts_for(replicas: int) -> int:
    """One front to 50 replicas, and two at least where there are several replicas."""
    return max(1 if replicas == 1 else 2, replicas // 50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    add = parser.add_argument
    add("--replicas", type=int, nargs="+", default=[1, 3, 10, 30, 100, 300, 1000])
    add("--tokens-per-second", type=float, default=150_000, help="of one replica")
    add("--overhead-ms", type=float, default=3.0, help="of a batch, besides its tokens")
    add("--load", type=float, default=0.8, help="share of what all replicas can compute")
    add("--seconds", type=float, default=3.0, help="of the simulated clock")
    add("--kill-every", type=float, default=0.0, help="seconds between two deaths; 0: none")
    add("--restart-seconds", type=float, default=2.0, help="until a dead replica is back")
    add("--seed", type=int, default=1)
    add("--picture", type=Path, help="draw the table, as .png or .svg")
    options = parser.parse_args()
    rows = []
    for replicas in options.replicas:
        for router in ROUTERS:
            rows.append(simulate(replicas, fronts_for(replicas), router, options))
            print(rows[-1], file=sys.stderr)
    print(table(rows))
    if options.picture:
        draw(rows, options.picture)


if __name__ == "__main__":
    main()
