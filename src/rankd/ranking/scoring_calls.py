"""Calls and batches of the scheduler: the prompts of one request, and those sent together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rankd.context import REQUEST_ID
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
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait(self) -> None:
        """Return when every prompt has its logit; raises the error that the call failed with."""
        await self._done

    @property
    def ended(self) -> bool:
        return self._done.done()

    def start(self) -> None:
        """The engine begins with a batch that has prompts of this call."""
        if self._on_start is not None:
            self._on_start()

    def answer(self, index: int, logit: float) -> None:
        """Keep the logit of one prompt, unless the call has ended."""
        if self.ended:
            return
        self.logits[index] = logit
        self._unanswered -= 1
        if self._on_logit is not None:
            self._on_logit(index, logit)
        if not self._unanswered:
            self._done.set_result(None)

    def fail(self, problem: BaseException) -> None:
        if not self.ended:
            self._done.set_exception(problem)


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

    def drop_ended(self) -> None:
        self.rows = [(call, index) for call, index in self.rows if not call.ended]

    def by_call(self) -> list[Batch]:
        """The same prompts as one batch per call, each to be scored alone."""
        rows_by_call: dict[ScoringCall, list[tuple[ScoringCall, int]]] = {}
        for call, index in self.rows:
            rows_by_call.setdefault(call, []).append((call, index))
        return [Batch(rows, alone=True) for rows in rows_by_call.values()]
