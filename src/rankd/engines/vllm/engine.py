"""The engine contract, kept by vLLM's `AsyncLLM` in this process."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast

from rankd.engines.base import LISTENER, EngineInfo
from rankd.engines.vllm.error_mapping import DEAD, translated
from rankd.engines.vllm.priorities import Turns
from rankd.errors import DeadlineExceeded, EngineDown, InternalError
from rankd.telemetry import metrics
from rankd.types import Prompt

# A long call lets the loop turn after so many documents.
_AT_A_TIME = 64


class Collector(Protocol):
    """Where vLLM puts the answer of one document."""

    def get_nowait(self) -> Any: ...

    async def get(self) -> Any: ...


class Llm(Protocol):
    """What we use of `AsyncLLM`; unchanged from 0.18 to 0.33."""

    @property
    def errored(self) -> bool: ...

    async def add_request(
        self, request_id: str, prompt: Mapping[str, Any], params: Any, *, priority: int
    ) -> Collector: ...

    async def abort(self, request_id: list[str]) -> None: ...

    def shutdown(self) -> None: ...


class VllmEngine:
    def __init__(self, info: EngineInfo, llm: Llm, params: Any) -> None:
        """An engine that is ready.

        Args:
            params: vLLM's `PoolingParams` of every document.
        """
        self.info = info
        self._llm = llm
        self._params = params
        self._turns = Turns()
        self._numbers = itertools.count()

    async def score(
        self, prompts: Sequence[Prompt], *, priority: int = 0, deadline: float | None = None
    ) -> list[float]:
        await self.check()
        logits: list[float | None] = [None] * len(prompts)
        timeout = None if deadline is None else deadline - time.monotonic()
        try:
            async with asyncio.timeout(timeout):
                await self._score(prompts, priority, logits)
        except TimeoutError:
            raise DeadlineExceeded(logits) from None
        return cast(list[float], logits)

    def close(self) -> None:
        """End vLLM's processes and let go of it: it must not be there when Python ends."""
        llm, self._llm = self._llm, _Closed()
        llm.shutdown()

    async def check(self) -> None:
        if self._llm.errored:
            raise EngineDown(DEAD)

    async def _score(
        self, prompts: Sequence[Prompt], priority: int, logits: list[float | None]
    ) -> None:
        number = next(self._numbers)
        names = [f"{number}-{place}" for place in range(len(prompts))]
        turns = self._turns.of(prompts, priority)
        listener = LISTENER.get()
        async with self._translating(), self._aborting(names, logits):
            waiting: list[Collector] = []
            try:
                await self._submit(waiting, names, prompts, turns)
                # They may finish in any order; who is awaited first does not matter.
                for place, (turn, collector) in enumerate(zip(turns, waiting, strict=True)):
                    logit = _logit(collector.get_nowait() or await collector.get())
                    logits[place] = logit
                    self._turns.passed(turn)
                    if listener is not None:
                        listener(place, logit)
            except asyncio.CancelledError:
                _take_finished(waiting, logits)
                raise

    async def _submit(
        self,
        waiting: list[Collector],
        names: Sequence[str],
        prompts: Sequence[Prompt],
        turns: Sequence[int],
    ) -> None:
        for name, prompt, turn in zip(names, prompts, turns, strict=True):
            # `type` tells vLLM that nothing is to be rendered or tokenized.
            ready = {"type": "token", "prompt_token_ids": [*prompt.prefix, *prompt.suffix]}
            waiting.append(await self._llm.add_request(name, ready, self._params, priority=turn))
            if len(waiting) % _AT_A_TIME == 0:
                await asyncio.sleep(0)

    @asynccontextmanager
    async def _aborting(
        self, names: Sequence[str], logits: Sequence[float | None]
    ) -> AsyncIterator[None]:
        """Whatever ends the call early, what vLLM still holds of it is abandoned at once."""
        try:
            yield
        finally:
            unanswered = [name for name, logit in zip(names, logits, strict=True) if logit is None]
            if unanswered and not self._llm.errored:
                metrics.ABANDONED_DOCUMENTS.inc(len(unanswered))
                # One message for all, and a second cancellation does not stop it.
                await asyncio.shield(self._llm.abort(unanswered))

    @asynccontextmanager
    async def _translating(self) -> AsyncIterator[None]:
        try:
            yield
        except Exception as problem:  # By name: the classes differ between releases.
            if self._llm.errored:
                raise EngineDown(DEAD) from problem
            ours = translated(problem)
            if ours is None:
                raise
            raise ours from problem


class _Closed:
    """What is left of vLLM when the engine is closed."""

    errored = True

    async def add_request(
        self, request_id: str, prompt: Mapping[str, Any], params: Any, *, priority: int
    ) -> Collector:
        raise EngineDown(DEAD)

    async def abort(self, request_id: list[str]) -> None:
        """Nothing is left to abort."""

    def shutdown(self) -> None:
        """Nothing is left to end."""


def _take_finished(waiting: Sequence[Collector], logits: list[float | None]) -> None:
    """Of those that were not yet awaited, the logits that are there already."""
    for place, collector in enumerate(waiting):
        if logits[place] is None and (output := collector.get_nowait()) is not None:
            logits[place] = _logit(output)


def _logit(output: Any) -> float:
    """The one number of an answer; an empty tensor is vLLM's word for an abort, never 0.0."""
    data = output.outputs.data
    if data.numel() == 0:
        raise InternalError("vLLM abandoned a document of this request")
    return float(data.item())
