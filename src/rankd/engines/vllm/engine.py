"""The `Engine` contract on vLLM's `AsyncLLM`."""

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
    """Receives vLLM's output for one prompt."""

    def get_nowait(self) -> Any: ...

    async def get(self) -> Any: ...


class Llm(Protocol):
    """The methods of `AsyncLLM` that are used; unchanged from 0.18 to 0.33."""

    @property
    def errored(self) -> bool: ...

    async def add_request(
        self, request_id: str, prompt: Mapping[str, Any], params: Any
    ) -> Collector: ...

    async def abort(self, request_id: list[str]) -> None: ...

    def shutdown(self) -> None: ...


class VllmEngine:
    def __init__(
        self, info: EngineInfo, llm: Llm, params: Any, *, slots: int, scale: float = 1.0
    ) -> None:
        """An engine that is ready.

        Args:
            params: vLLM's `PoolingParams`, the same for every prompt.
            slots: maximum batches in flight. vLLM merges them, so each is sent at once.
            scale: vLLM's logits are multiplied by it.
        """
        self.info = info
        self.slots = Slots(slots, eager=slots)
        self._llm = llm
        self._params = params
        self._scale = scale
        self._numbers = itertools.count()

    async def score(self, batch: Sequence[Prompt]) -> list[float]:
        await self.check()
        number = next(self._numbers)
        request_ids = [f"{number}-{index}" for index in range(len(batch))]
        logits: list[float] = []
        async with self._translating(), self._aborting(request_ids, logits):
            collectors: list[Collector] = []
            for request_id, prompt in zip(request_ids, batch, strict=True):
                # `type` tells vLLM not to render or tokenize.
                tokens = {"type": "token", "prompt_token_ids": [*prompt.prefix, *prompt.suffix]}
                collectors.append(await self._llm.add_request(request_id, tokens, self._params))
            # Prompts may finish in any order; all of them are awaited.
            for collector in collectors:
                output = collector.get_nowait() or await collector.get()
                logits.append(self._scale * _logit(output))
        return logits

    def close(self) -> None:
        """End vLLM's processes and drop the reference: vLLM must be gone before Python exits."""
        llm, self._llm = self._llm, _Closed()
        llm.shutdown()

    async def check(self) -> None:
        if self._llm.errored:
            raise EngineDown(DEAD)

    @asynccontextmanager
    async def _aborting(
        self, request_ids: Sequence[str], logits: Sequence[float]
    ) -> AsyncIterator[None]:
        """If the batch ends early, abort the prompts without a logit in vLLM."""
        try:
            yield
        except BaseException:
            if not self._llm.errored:
                # One call for all prompts, shielded from a second cancellation.
                await asyncio.shield(self._llm.abort(list(request_ids[len(logits) :])))
            raise

    @asynccontextmanager
    async def _translating(self) -> AsyncIterator[None]:
        try:
            yield
        except Exception as problem:  # Translated by name: classes differ between releases.
            if self._llm.errored:
                raise EngineDown(DEAD) from problem
            error = translated(problem)
            if error is None:
                raise
            raise error from problem


class _Closed:
    """Replaces vLLM after the engine was closed."""

    errored = True

    async def add_request(
        self, request_id: str, prompt: Mapping[str, Any], params: Any
    ) -> Collector:
        raise EngineDown(DEAD)

    async def abort(self, request_id: list[str]) -> None:
        """Nothing to abort."""

    def shutdown(self) -> None:
        """Nothing to end."""


def _logit(output: Any) -> float:
    """The logit of an output. The output of an aborted request is an empty tensor, not 0.0."""
    data = output.outputs.data
    if data.numel() == 0:
        raise InternalError("vLLM abandoned a document of this request")
    return float(data.item())
