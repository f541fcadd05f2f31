"""The vLLM engine over a stand-in for `AsyncLLM`, with the signatures of three releases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from rankd.engines.base import EngineInfo
from rankd.engines.vllm import start
from rankd.engines.vllm.engine import VllmEngine
from rankd.errors import (
    BadSettings,
    EngineDown,
    InternalError,
    InvalidRequest,
    TooManyRequests,
)
from rankd.types import Prompt

pytestmark = pytest.mark.anyio

PROMPTS = [Prompt((1, 2), (3,) * length) for length in (4, 1, 9, 2)]


class EngineDeadError(Exception):
    """Named as vLLM's."""


class GracefulHTTPError(Exception):
    http_status = 503


class QueueOverflowError(GracefulHTTPError):
    pass


class GenerationError(Exception):
    pass


class RetryableRequestError(GenerationError):
    """Raised by vLLM 0.33 for requests that reach a paused engine."""


class VLLMValidationError(Exception):
    pass


class EngineGenerateError(Exception):
    pass


@dataclass
class Tensor:
    values: list[float]

    def numel(self) -> int:
        return len(self.values)

    def item(self) -> float:
        [value] = self.values
        return value


@dataclass
class Outputs:
    data: Tensor


@dataclass
class Output:
    outputs: Outputs


@dataclass
class Collector:
    """As vLLM's: one answer, or an exception that is raised where it is read."""

    answer: asyncio.Future[Output]

    def get_nowait(self) -> Output | None:
        return self.answer.result() if self.answer.done() else None

    async def get(self) -> Output:
        # As vLLM's: who stops waiting for an answer does not destroy it.
        return await asyncio.shield(self.answer)


@dataclass
class Llm:
    """Answers with the length of the prompt once it is told to."""

    params: Any = "pooling params"
    errored: bool = False
    added: dict[str, list[int]] = field(default_factory=dict)
    collectors: dict[str, Collector] = field(default_factory=dict)
    aborted: list[list[str]] = field(default_factory=list)
    refuse: Callable[[str], Exception | None] = lambda name: None
    asleep: bool = False

    def _add(self, name: str, prompt: Mapping[str, Any], params: Any) -> Collector:
        if (problem := self.refuse(name)) is not None:
            raise problem
        assert params == self.params
        assert prompt["type"] == "token"
        assert name not in self.added
        self.added[name] = prompt["prompt_token_ids"]
        self.collectors[name] = Collector(asyncio.get_running_loop().create_future())
        if not self.asleep:
            # The last first: answers come in any order.
            asyncio.get_running_loop().call_later(0.02 / len(self.added), self.answer, name)
        return self.collectors[name]

    def answer(self, name: str) -> None:
        self.put(name, Output(Outputs(Tensor([float(len(self.added[name]))]))))

    def put(self, name: str, output: Output | Exception) -> None:
        answer = self.collectors[name].answer
        if answer.done():
            return
        if isinstance(output, Exception):
            answer.set_exception(output)
        else:
            answer.set_result(output)

    async def abort(self, request_id: list[str]) -> None:
        self.aborted.append(request_id)

    def die(self) -> None:
        self.errored = True
        for name in self.collectors:
            self.put(name, EngineDeadError())

    def shutdown(self, timeout: float | None = None) -> None:
        self.die()


class Llm018(Llm):
    async def add_request(  # type: ignore[no-untyped-def]
        self, request_id, prompt, params, arrival_time=None, lora_request=None,
        tokenization_kwargs=None, trace_headers=None, priority=0, data_parallel_rank=None,
        prompt_text=None, reasoning_ended=None,
    ) -> Collector:  # fmt: skip
        return self._add(request_id, prompt, params)


class Llm023(Llm):
    async def add_request(  # type: ignore[no-untyped-def]
        self, request_id, prompt, params, arrival_time=None, lora_request=None,
        tokenization_kwargs=None, trace_headers=None, priority=0, data_parallel_rank=None,
        prompt_text=None, reasoning_ended=None, reasoning_parser_kwargs=None,
    ) -> Collector:  # fmt: skip
        return self._add(request_id, prompt, params)


class Llm033(Llm):
    async def add_request(  # type: ignore[no-untyped-def]
        self, request_id, prompt, params, arrival_time=None, lora_request=None,
        tokenization_kwargs=None, trace_headers=None, priority=0, data_parallel_rank=None,
        session_id=None, prompt_text=None, reasoning_ended=None, reasoning_parser_kwargs=None,
        kv_hints=None,
    ) -> Collector:  # fmt: skip
        return self._add(request_id, prompt, params)


RELEASES = [Llm018, Llm023, Llm033]


def engine(llm: Llm) -> VllmEngine:
    info = EngineInfo("vllm", "model", "revision", "cpu", "float32", 512, "0.33.0")
    return VllmEngine(info, llm, llm.params, slots=4)  # type: ignore[arg-type]


@pytest.mark.parametrize("release", RELEASES)
async def test_logits_come_in_the_order_of_the_prompts(release: type[Llm]) -> None:
    llm = release()

    logits = await engine(llm).score(PROMPTS)

    assert logits == [6.0, 3.0, 11.0, 4.0]
    assert list(llm.added.values()) == [[*p.prefix, *p.suffix] for p in PROMPTS]
    assert llm.aborted == []


async def test_logits_are_multiplied_by_the_scale() -> None:
    llm = Llm033()
    info = engine(llm).info
    scaled = VllmEngine(info, llm, llm.params, slots=4, scale=0.5)

    assert await scaled.score(PROMPTS) == [3.0, 1.5, 5.5, 2.0]


async def test_calls_never_share_a_name() -> None:
    llm = Llm033()
    ours = engine(llm)

    await asyncio.gather(ours.score(PROMPTS), ours.score(PROMPTS))

    assert len(llm.added) == 8


@pytest.mark.parametrize("release", RELEASES)
async def test_cancelling_aborts_what_is_unanswered_in_one_message(release: type[Llm]) -> None:
    llm = release(asleep=True)

    call = asyncio.create_task(engine(llm).score(PROMPTS))
    await asyncio.sleep(0.01)
    first, second, *_ = llm.added
    llm.answer(first)
    llm.answer(second)
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert llm.aborted == [list(llm.added)[2:]]


async def test_an_empty_tensor_is_an_abort_and_never_a_score() -> None:
    llm = Llm033(asleep=True)

    call = asyncio.create_task(engine(llm).score(PROMPTS[:2]))
    await asyncio.sleep(0.01)
    llm.put(next(iter(llm.added)), Output(Outputs(Tensor([]))))

    with pytest.raises(InternalError, match="vLLM abandoned a document"):
        await call


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (QueueOverflowError("full"), TooManyRequests),
        (RetryableRequestError("paused"), TooManyRequests),
        (GenerationError("failed"), InternalError),
        (VLLMValidationError("token id 999999 is out of vocabulary"), InvalidRequest),
        (ValueError("too long"), InvalidRequest),
        (EngineGenerateError(), InternalError),
        (EngineDeadError(), EngineDown),
        (ZeroDivisionError(), ZeroDivisionError),
    ],
)
async def test_their_errors_are_ours_by_name(theirs: Exception, ours: type[Exception]) -> None:
    llm = Llm033(refuse=lambda name: theirs if name.endswith("-2") else None)

    with pytest.raises(ours):
        await engine(llm).score(PROMPTS)

    # A refusal halfway leaves nothing behind.
    assert llm.aborted == [["0-0", "0-1", "0-2", "0-3"]]


async def test_a_dead_engine_answers_everyone_at_once() -> None:
    llm = Llm033(asleep=True)
    ours = engine(llm)

    calls = [asyncio.create_task(ours.score(PROMPTS)) for _ in range(3)]
    await asyncio.sleep(0.01)
    llm.die()
    for outcome in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(outcome, EngineDown)
    with pytest.raises(EngineDown):
        await ours.check()
    with pytest.raises(EngineDown):
        await ours.score(PROMPTS)

    assert llm.aborted == []


async def test_a_closed_engine_is_down() -> None:
    ours = engine(Llm033())
    ours.close()

    with pytest.raises(EngineDown):
        await ours.score(PROMPTS)


def test_its_slots_take_batches_that_are_not_full() -> None:
    ours = engine(Llm033())

    assert (ours.slots.count, ours.slots.eager) == (4, 4)


def test_a_missing_driver_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ImportError("libascend_hal.so: cannot open shared object file")

    monkeypatch.setattr(start, "_imported", fail)

    with pytest.raises(BadSettings, match=r"cannot be loaded: libascend_hal\.so.*--gpus all"):
        start._import_vllm()
