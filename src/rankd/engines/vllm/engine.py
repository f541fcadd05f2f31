"""The engine contract, kept by vLLM's `AsyncLLM` in this process."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from rankd.engines.base import EngineInfo, Slots
from rankd.engines.vllm.error_mapping import DEAD, translated
from rankd.errors import EngineDown, InternalError
from rankd.types import Prompt


class Collector(Protocol):
    """Where vLLM puts the answer of one document."""

    def get_nowait(self) -> Any: ...

    async def get(self) -> Any: ...


class Llm(Protocol):
    """What we use of `AsyncLLM`; unchanged from 0.18 to 0.33."""

    @property
    def errored(self) -> bool: ...

    async def add_request(
        self, request_id: str, prompt: Mapping[str, Any], params: Any
    ) -> Collector: ...

    async def abort(self, request_id: list[str]) -> None: ...

    def shutdown(self) -> None: ...


class VllmEngine:
    def __init__(self, info: EngineInfo, llm: Llm, params: Any, *, slots: int) -> None:
        """An engine that is ready.

        Args:
            params: vLLM's `PoolingParams` of every document.
            slots: batches in flight. vLLM merges them, so it takes each as soon as it comes.
        """
        self.info = info
        self.slots = Slots(slots, eager=slots)
        self._llm = llm
        self._params = params
        self._numbers = itertools.count()

    async def score(self, batch: Sequence[Prompt]) -> list[float]:
        await self.check()
        number = next(self._numbers)
        names = [f"{number}-{index}" for index in range(len(batch))]
        logits: list[float] = []
        async with self._translating(), self._aborting(names, logits):
            collectors: list[Collector] = []
            for name, prompt in zip(names, batch, strict=True):
                # `type` tells vLLM that nothing is to be rendered or tokenized.
                ready = {"type": "token", "prompt_token_ids": [*prompt.prefix, *prompt.suffix]}
                collectors.append(await self._llm.add_request(name, ready, self._params))
            # They may finish in any order; the order of awaiting does not matter.
            for collector in collectors:
                logits.append(_logit(collector.get_nowait() or await collector.get()))
        return logits

    def close(self) -> None:
        """End vLLM's processes and let go of it: it must not be there when Python ends."""
        llm, self._llm = self._llm, _Closed()
        llm.shutdown()

    async def check(self) -> None:
        if self._llm.errored:
            raise EngineDown(DEAD)

    @asynccontextmanager
    async def _aborting(self, names: Sequence[str], logits: Sequence[float]) -> AsyncIterator[None]:
        """When the batch ends early, abort in vLLM the prompts that have no logit."""
        try:
            yield
        except BaseException:
            if not self._llm.errored:
                # One message for all, and a second cancellation does not stop it.
                await asyncio.shield(self._llm.abort(list(names[len(logits) :])))
            raise

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
    """Stands in for vLLM when the engine is closed."""

    errored = True

    async def add_request(
        self, request_id: str, prompt: Mapping[str, Any], params: Any
    ) -> Collector:
        raise EngineDown(DEAD)

    async def abort(self, request_id: list[str]) -> None:
        """Nothing is left to abort."""

    def shutdown(self) -> None:
        """Nothing is left to end."""


def _logit(output: Any) -> float:
    """The number of an answer. vLLM answers an aborted request with an empty tensor, not 0.0."""
    data = output.outputs.data
    if data.numel() == 0:
        raise InternalError("vLLM abandoned a document of this request")
    return float(data.item())
