"""Equal prompts, equal bits: whatever the load, the order, the restarts and the cache."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import struct
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rankd.config.settings import Settings
from rankd.engines import choose, open_engine
from rankd.engines.base import Engine
from rankd.engines.native import worker
from rankd.engines.native.architecture import read_architecture
from rankd.engines.native.framing import TokenBatch
from rankd.engines.native.model import Qwen3Model
from rankd.engines.native.weights import load
from rankd.errors import BadSettings, EngineRestarting
from rankd.models.checkpoint import BUILTIN, Checkpoint, locate
from rankd.server.app import open_ranker
from rankd.types import AnswerTokenIds, Prompt, RankRequest
from support.checkpoints import NO, YES, make_checkpoint
from support.servers import family

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
    """This process's own threads would spin while they wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def bits(logits: Sequence[float]) -> bytes:
    return struct.pack(f"{len(logits)}d", *logits)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    # Wide enough that products are divided among threads, and rounded by their shape.
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
    """Heads that begin alike, as under one instruction; documents of all lengths, some twice."""
    dice = random.Random(seed)
    instruction = _ids(dice, 40)
    made = []
    for _ in range(count):
        head = instruction + _ids(dice, dice.randrange(1, 30))
        prompts = [
            Prompt(head, _ids(dice, dice.choice([1, 2, 7, 30, 90, 90, 91, 300])))
            for _ in range(dice.randrange(1, 8))
        ]
        made.append(prompts + prompts[: dice.randrange(2)])
    return made


async def _alone(engine: Engine, wanted: Sequence[list[Prompt]]) -> list[bytes]:
    return [bits(await engine.score(one)) for one in wanted]


async def _beside(engine: Engine, wanted: Sequence[list[Prompt]], seed: int) -> list[bytes]:
    """In another order, all at once, among more work than they are, some of it cancelled."""
    load = [asyncio.create_task(engine.score(one)) for one in requests(10, seed)]
    order = list(range(len(wanted)))
    random.Random(seed).shuffle(order)
    calls = {place: asyncio.create_task(engine.score(wanted[place])) for place in order}
    await asyncio.sleep(0.02)
    for task in load[::3]:
        task.cancel()
    found = [bits(await calls[place]) for place in range(len(wanted))]
    await asyncio.gather(*load, return_exceptions=True)
    return found


async def _until_it_answers(engine: Engine) -> None:
    while True:
        try:
            return await engine.check()
        except EngineRestarting:
            await asyncio.sleep(0.02)


def _kill_the_worker() -> None:
    for pid in family(os.getpid())[1:]:
        if b"native.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def test_equal_requests_have_equal_bits_whatever_else_happens(checkpoint: Checkpoint) -> None:
    wanted = requests(10, seed=1)

    async def first_life() -> list[bytes]:
        async with open_engine(checkpoint, ANSWERS, SETTINGS) as engine:
            assert engine.info.deterministic
            alone = await _alone(engine, wanted)
            assert await _beside(engine, wanted, seed=2) == alone

            killed = asyncio.create_task(_beside(engine, wanted, seed=3))
            await asyncio.sleep(0.1)
            _kill_the_worker()
            assert await killed == alone
            await _until_it_answers(engine)
            assert await _alone(engine, wanted) == alone
            return alone

    async def second_life() -> list[bytes]:
        async with open_engine(checkpoint, ANSWERS, SETTINGS) as engine:
            backwards = [bits((await engine.score(one[::-1]))[::-1]) for one in wanted[::-1]]
            return backwards[::-1]

    async def one_by_one() -> list[bytes]:
        settings = SETTINGS.model_copy(update={"batch_tokens": 16})
        async with open_engine(checkpoint, ANSWERS, settings) as engine:
            return [
                b"".join([bits(await engine.score([prompt])) for prompt in one]) for one in wanted
            ]

    alone = asyncio.run(first_life())
    assert asyncio.run(second_life()) == alone
    assert asyncio.run(one_by_one()) == alone
    assert len(set(alone)) == len(wanted)


def test_equal_prompts_of_one_call_have_equal_bits(checkpoint: Checkpoint) -> None:
    dice = random.Random(5)
    once = Prompt(_ids(dice, 30), _ids(dice, 90))
    others = [Prompt(_ids(dice, 30), _ids(dice, dice.randrange(1, 90))) for _ in range(9)]
    mixed = [prompt for other in others for prompt in (other, once)]

    async def score() -> list[float]:
        async with open_engine(checkpoint, ANSWERS, SETTINGS) as engine:
            return await engine.score(mixed)

    assert len({bits([logit]) for logit in asyncio.run(score())[1::2]}) == 1


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_does_not_matter_which_heads_are_kept(
    checkpoint: Checkpoint, dtype: torch.dtype
) -> None:
    shape = read_architecture(checkpoint.config)
    weights = load(checkpoint.weights, shape, ANSWERS, torch.device("cpu"), dtype)
    prompts = [prompt for one in requests(5, seed=7) for prompt in one]
    batch = _batch(prompts)

    kept = Qwen3Model(weights, shape, deterministic=True)
    # Room for less than one: none is there when the next document of its request comes.
    forgetful = Qwen3Model(weights, shape, head_bytes=1, deterministic=True)
    spread = [forgetful.score(_batch(prompts[start::5])) for start in range(5)]

    logits = kept.score(batch)
    assert bits(kept.score(batch)) == bits(logits)
    for start, some in enumerate(spread):
        assert bits(some) == bits(logits[start::5])


def _batch(prompts: Sequence[Prompt]) -> TokenBatch:
    heads = list(dict.fromkeys(prompt.prefix for prompt in prompts))
    tails = [(heads.index(prompt.prefix), array("i", prompt.suffix)) for prompt in prompts]
    return TokenBatch([array("i", head) for head in heads], tails)


@pytest.mark.usefixtures("one_thread")
def test_a_prompt_without_a_head_is_scored(checkpoint: Checkpoint) -> None:
    shape = read_architecture(checkpoint.config)
    weights = load(checkpoint.weights, shape, ANSWERS, torch.device("cpu"), torch.float32)
    prompts = [Prompt((), (6000, 7000)), Prompt((), (8000,))]

    both = Qwen3Model(weights, shape, deterministic=True).score(_batch(prompts))
    packed = Qwen3Model(weights, shape).score(_batch(prompts))

    assert both == pytest.approx(packed, abs=1e-4)


def test_scores_from_the_cache_and_computed_ones_have_equal_bits() -> None:
    dice = random.Random(11)
    words = ["lion", "gravity", "capital", "重力", "rain", "bread", "planet", "river", "code"]
    texts = tuple(" ".join(dice.choices(words, k=dice.randrange(1, 80))) for _ in range(30))
    ask = RankRequest("What is the capital of China?", texts)
    settings = SETTINGS.model_copy(update={"model": BUILTIN})

    async def logits(cache_mb: int) -> list[bytes]:
        update = {"cache_mb": cache_mb}
        async with open_ranker(settings.model_copy(update=update)) as (_, ranker):
            asks = [ask, replace(ask, documents=texts[::-1]), ask, replace(ask, cache=False)]
            found = [[one.logit for one in await ranker.rank(each)] for each in asks]
            found[1].reverse()
            halves = await asyncio.gather(
                *(ranker.rank(replace(ask, documents=texts[start::2])) for start in (0, 1))
            )
            found.append([halves[place % 2][place // 2].logit for place in range(len(texts))])
            return [bits(one) for one in found]

    with_cache, without = asyncio.run(logits(8)), asyncio.run(logits(0))
    assert len({*with_cache, *without}) == 1


def test_the_engine_says_what_the_bits_hold_for(checkpoint: Checkpoint) -> None:
    async def said(**update: int) -> str:
        async with open_engine(checkpoint, ANSWERS, SETTINGS.model_copy(update=update)) as engine:
            return engine.info.arithmetic

    one, two, all_ = (asyncio.run(said(threads=threads)) for threads in (1, 2, 0))

    assert one.startswith(f"torch {torch.__version__}, ")
    assert one.endswith(", 1 thread")
    assert two.endswith(", 2 threads")
    assert all_.split(", ")[:2] == one.split(", ")[:2]


def test_only_the_cpu_is_promised() -> None:
    with pytest.raises(BadSettings, match=r"promised on the CPU only, and the device is cuda:0"):
        worker._refuse_unproven(torch.device("cuda:0"))
    worker._refuse_unproven(torch.device("cpu"))


def test_vllm_refuses_to_promise_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSettings, match="the last bits of vLLM's scores depend on what it"):
        choose(Settings(engine="vllm", deterministic=True))

    monkeypatch.setattr("rankd.engines.accelerator", lambda: "cuda")
    monkeypatch.setattr("rankd.engines._is_installed", lambda module: True)
    assert choose(Settings(engine="auto")) == "vllm"
    assert choose(Settings(engine="auto", deterministic=True)) == "native"
