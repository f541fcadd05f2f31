"""Calls and batches of the scheduler: the prompts of one request, and those sent together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rankd.context import REQUEST_ID
from rankd.errors import TooLarge
from rankd.ranking.fair_queue import QueuedCall
from rankd.types import Prompt

# Receives the index of a prompt in its call, and its logit.
OnLogit = Callable[[int, float], None]


class ScoringCall(QueuedCall):
    """A call with its logits.

    Attributes:
        logits: in the order of the prompts; None where not scored yet.
        request_id: of the request, for logs and errors.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        *,
        priority: int,
        path: Sequence[str],
        on_logit: OnLogit | None,
        on_start: Callable[[], None] | None,
    ) -> None:
        super().__init__(prompts, priority=priority, path=path)
        self.logits: list[float | None] = [None] * len(prompts)
        self.request_id = REQUEST_ID.get()
        self._on_logit = on_logit
        self._on_start = on_start
        self._unanswered = len(prompts)
        # Done when every prompt has its logit; or has what the call failed with.
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self) -> None:
        """The engine begins with a batch that has prompts of this call."""
        if self._on_start is not None:
            self._on_start()

    def answer(self, index: int, logit: float) -> None:
        """Keep the logit of one prompt, unless the call has ended."""
        if self.done.done():
            return
        self.logits[index] = logit
        self._unanswered -= 1
        if self._on_logit is not None:
            self._on_logit(index, logit)
        if not self._unanswered:
            self.done.set_result(None)

    def fail(self, problem: BaseException) -> None:
        if not self.done.done():
            self.done.set_exception(problem)


@dataclass(eq=False, slots=True)
class Batch:
    """Prompts that the engine gets together.

    Attributes:
        rows: each prompt, as its call and its index there.
        alone: no other batch may be in flight at the same time; all rows are of one call.
        sent: `time.monotonic()` when the engine got it.
        started: `time.monotonic()` when the engine began with it; None: not yet.
    """

    rows: list[tuple[ScoringCall, int]]
    alone: bool = False
    sent: float = 0.0
    started: float | None = None
    task: asyncio.Task[list[float]] | None = None

    @property
    def calls(self) -> list[ScoringCall]:
        return list(dict.fromkeys(call for call, _ in self.rows))

    def start(self) -> None:
        """The engine begins with it."""
        self.started = time.monotonic()
        for call in self.calls:
            call.start()

    def deliver(self, logits: Sequence[float | None], device: str) -> None:
        """Give each call its logits; None fails the call, because the prompt is too large.

        Args:
            logits: in the order of the rows.
            device: for the message.
        """
        for (call, index), logit in zip(self.rows, logits, strict=True):
            if logit is None:
                call.fail(_lacks_memory(call.prompts[index], device))
            else:
                call.answer(index, logit)

    def drop_ended(self) -> None:
        self.rows = [(call, index) for call, index in self.rows if not call.done.done()]

    def by_call(self) -> list[Batch]:
        """The same prompts as one batch per call, each to be scored alone."""
        rows_by_call: dict[ScoringCall, list[tuple[ScoringCall, int]]] = {}
        for call, index in self.rows:
            rows_by_call.setdefault(call, []).append((call, index))
        return [Batch(rows, alone=True) for rows in rows_by_call.values()]


def _lacks_memory(prompt: Prompt, device: str) -> TooLarge:
    return TooLarge(
        f"a document of {len(prompt):,} tokens, template included, does not fit in the memory "
        f"that {device} has left; send shorter documents",
        param="documents",
    )
