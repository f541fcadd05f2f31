"""`deterministic`: equal prompts have equal bits under any load, order, restart and cache."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import struct
from array import array
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rankd.config.settings import Settings
from rankd.engines import choose, open_engine
from rankd.engines.native import worker
from rankd.engines.native.architecture import read_architecture
from rankd.engines.native.framing import TokenBatch
from rankd.engines.native.model import Qwen3Model
from rankd.engines.native.weights import load
from rankd.engines.registry import EngineSpec
from rankd.errors import BadSettings, EngineRestarting
from rankd.models.checkpoint import BUILTIN, Checkpoint, locate
from rankd.ranking.scheduler import Scheduler, open_scheduler
from rankd.server.app import open_ranker
from rankd.types import AnswerTokenIds, Prompt, RankRequest
from support.checkpoints import NO, YES, make_checkpoint
from support.servers import family

pytestmark = pytest.mark.slow

ANSWERS = AnswerTokenIds(YES, NO)
SETTINGS = Settings(
    engine="native",
    device="cpu",
    deterministic=True,
    threads=2,
    batch_tokens=512,
    engine_wait_seconds=200,
)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One torch thread in this process: more of them would spin while they wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bits(logits: Sequence[float]) -> bytes:
    return struct.pack(f"{len(logits)}d", *logits)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    # Wide enough that matrix products are divided among threads, and round by their shape.
    folder = tmp_path_factory.mktemp("deterministic") / "model"
    return locate(
        str(
            make_checkpoint(
                folder,
                tokenizer=False,
                hidden=512,
                layers=3,
                heads=8,
                kv_heads=4,
                head_dim=64,
                mlp=1024,
            )
        )
    )


def _ids(dice: random.Random, length: int) -> tuple[int, ...]:
    return tuple(dice.randrange(5000, 151_000) for _ in range(length))


def requests(count: int, seed: int) -> list[list[Prompt]]:
    """Requests whose prefixes begin alike, with documents of many lengths, some of them twice."""
    dice = random.Random(seed)
    instruction = _ids(dice, 40)
    made = []
    for _ in range(count):
        prefix = instruction + _ids(dice, dice.randrange(1, 30))
        prompts = [
            Prompt(prefix, _ids(dice, dice.choice([1, 2, 7, 30, 90, 90, 91, 300])))
            for _ in range(dice.randrange(1, 8))
        ]
        made.append(prompts + prompts[: dice.randrange(2)])
    return made


@asynccontextmanager
async def _open_scheduler(checkpoint: Checkpoint, settings: Settings) -> AsyncIterator[Scheduler]:
    async with (
        open_engine(checkpoint, ANSWERS, settings) as engine,
        open_scheduler(engine, patience=60) as scheduler,
    ):
        yield scheduler


async def _in_turn(scheduler: Scheduler, calls: Sequence[list[Prompt]]) -> list[bytes]:
    return [bits(await scheduler.score(prompts)) for prompts in calls]


async def _under_load(
    scheduler: Scheduler, calls: Sequence[list[Prompt]], seed: int
) -> list[bytes]:
    """All calls at once and in another order, beside ten others, some of which are cancelled."""
    others = [asyncio.create_task(scheduler.score(prompts)) for prompts in requests(10, seed)]
    order = list(range(len(calls)))
    random.Random(seed).shuffle(order)
    tasks = {index: asyncio.create_task(scheduler.score(calls[index])) for index in order}
    await asyncio.sleep(0.02)
    for task in others[::3]:
        task.cancel()
    results = [bits(await tasks[index]) for index in range(len(calls))]
    await asyncio.gather(*others, return_exceptions=True)
    return results


async def _wait_for_restart(scheduler: Scheduler) -> None:
    while True:
        try:
            return await scheduler.check()
        except EngineRestarting:
            await asyncio.sleep(0.02)


def _kill_the_worker() -> None:
    workers = [
        pid
        for pid in family(os.getpid())[1:]
        if b"native.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    assert workers
    for pid in workers:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.anyio
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_equal_requests_have_equal_bits_under_load_and_after_restarts(
    checkpoint: Checkpoint, dtype: str
) -> None:
    calls = requests(10, seed=1)
    settings = SETTINGS.model_copy(update={"dtype": dtype})

    async with _open_scheduler(checkpoint, settings) as scheduler:
        assert scheduler.engine.info.deterministic
        assert f", {dtype} products" in scheduler.engine.info.arithmetic
        expected = await _in_turn(scheduler, calls)
        assert await _under_load(scheduler, calls, seed=2) == expected

        interrupted = asyncio.create_task(_under_load(scheduler, calls, seed=3))
        await asyncio.sleep(0.1)
        _kill_the_worker()
        assert await interrupted == expected
        await _wait_for_restart(scheduler)
        assert await _in_turn(scheduler, calls) == expected

    async with _open_scheduler(checkpoint, settings) as scheduler:
        reversed_calls = [(await scheduler.score(prompts[::-1]))[::-1] for prompts in calls[::-1]]
        assert [bits(logits) for logits in reversed_calls[::-1]] == expected

    one_by_one = settings.model_copy(update={"batch_tokens": 16})
    async with _open_scheduler(checkpoint, one_by_one) as scheduler:
        for prompts, expected_bits in zip(calls, expected, strict=True):
            logits = [bits(await scheduler.score([prompt])) for prompt in prompts]
            assert b"".join(logits) == expected_bits

    assert len(set(expected)) == len(calls)


@pytest.mark.anyio
async def test_equal_prompts_of_one_call_have_equal_bits(checkpoint: Checkpoint) -> None:
    dice = random.Random(5)
    once = Prompt(_ids(dice, 30), _ids(dice, 90))
    others = [Prompt(_ids(dice, 30), _ids(dice, dice.randrange(1, 90))) for _ in range(9)]
    mixed = [prompt for other in others for prompt in (other, once)]

    async with _open_scheduler(checkpoint, SETTINGS) as scheduler:
        logits = await scheduler.score(mixed)

    assert len({bits([logit]) for logit in logits[1::2]}) == 1


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_bits_do_not_depend_on_cached_prefixes(checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    architecture = read_architecture(checkpoint.config)
    weights = load(checkpoint.weights, architecture, ANSWERS, torch.device("cpu"), dtype)
    prompts = [prompt for request in requests(5, seed=7) for prompt in request]
    batch = _batch(prompts)

    model = Qwen3Model(weights, architecture, deterministic=True)
    # Room for less than one prefix: only the newest is cached.
    small_cache = Qwen3Model(weights, architecture, prefix_cache_bytes=1, deterministic=True)
    in_parts = [small_cache.score(_batch(prompts[start::5])) for start in range(5)]

    logits = model.score(batch)
    assert bits(model.score(batch)) == bits(logits)
    for start, part in enumerate(in_parts):
        assert bits(part) == bits(logits[start::5])


def _batch(prompts: Sequence[Prompt]) -> TokenBatch:
    prefixes = list(dict.fromkeys(prompt.prefix for prompt in prompts))
    suffixes = [(prefixes.index(prompt.prefix), array("i", prompt.suffix)) for prompt in prompts]
    return TokenBatch([array("i", prefix) for prefix in prefixes], suffixes)


@pytest.mark.usefixtures("one_thread")
def test_a_prompt_without_a_prefix_is_scored(checkpoint: Checkpoint) -> None:
    architecture = read_architecture(checkpoint.config)
    weights = load(checkpoint.weights, architecture, ANSWERS, torch.device("cpu"), torch.float32)
    prompts = [Prompt((), (6000, 7000)), Prompt((), (8000,))]

    logits = Qwen3Model(weights, architecture, deterministic=True).score(_batch(prompts))
    packed = Qwen3Model(weights, architecture).score(_batch(prompts))

    assert logits == pytest.approx(packed, abs=1e-4)


@pytest.mark.anyio
async def test_cached_and_computed_scores_have_equal_bits() -> None:
    dice = random.Random(11)
    words = ["lion", "gravity", "capital", "重力", "rain", "bread", "planet", "river", "code"]
    texts = tuple(" ".join(dice.choices(words, k=dice.randrange(1, 80))) for _ in range(30))
    request = RankRequest("What is the capital of China?", texts)
    settings = SETTINGS.model_copy(update={"model": BUILTIN})

    async def rank_in_many_ways(cache_mb: int) -> list[bytes]:
        update = {"cache_mb": cache_mb}
        async with open_ranker(settings.model_copy(update=update)) as (_, ranker):

            async def logits(request: RankRequest) -> list[float]:
                return [document.logit for document in await ranker.rank(request)]

            first, again = await logits(request), await logits(request)
            uncached = await logits(replace(request, cache=False))
            backwards = await logits(replace(request, documents=texts[::-1]))
            halves = await asyncio.gather(
                *(logits(replace(request, documents=texts[start::2])) for start in (0, 1))
            )
            joined = [halves[index % 2][index // 2] for index in range(len(texts))]
            return [bits(way) for way in (first, again, uncached, backwards[::-1], joined)]

    assert len({*await rank_in_many_ways(8), *await rank_in_many_ways(0)}) == 1


@pytest.mark.anyio
async def test_the_engine_names_what_its_bits_depend_on(checkpoint: Checkpoint) -> None:
    async def arithmetic(threads: int) -> str:
        settings = SETTINGS.model_copy(update={"threads": threads})
        async with open_engine(checkpoint, ANSWERS, settings) as engine:
            return engine.info.arithmetic

    one, two, all_cores = [await arithmetic(threads) for threads in (1, 2, 0)]

    assert one.startswith(f"torch {torch.__version__}, ")
    assert one.endswith(", 1 thread")
    assert two.endswith(", 2 threads")
    assert all_cores.split(", ")[:3] == one.split(", ")[:3]


def test_other_devices_than_the_cpu_are_refused() -> None:
    with pytest.raises(BadSettings, match=r"promised on the CPU only, and the device is cuda:0"):
        worker._refuse_unproven(torch.device("cuda:0"))
    worker._refuse_unproven(torch.device("cpu"))


def test_vllm_is_refused_and_auto_chooses_native(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSettings, match="the last bits of vLLM's scores depend on what it"):
        choose(Settings(engine="vllm", deterministic=True))

    monkeypatch.setattr("rankd.engines.accelerator", lambda: "cuda")
    monkeypatch.setattr(EngineSpec, "is_installed", lambda spec: True)
    assert choose(Settings(engine="auto")) == "vllm"
    assert choose(Settings(engine="auto", deterministic=True)) == "native"
