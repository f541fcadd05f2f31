"""A batch that does not fit in memory is split, until one prompt does not fit."""

from __future__ import annotations

import logging
from typing import Protocol

from rankd.engines.native.framing import TokenBatch

_log = logging.getLogger("rankd")

# What torch says, in a RuntimeError, on CPU ("can't allocate", "not enough memory"), CUDA
# and NPU ("out of memory"), and what oneDNN makes of it ("could not create a memory").
_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "create a memory")


class BatchModel(Protocol):
    def score(self, batch: TokenBatch) -> list[float]: ...

    def free_memory(self) -> None: ...


def score(model: BatchModel, batch: TokenBatch) -> list[float | None]:
    """One logit for each tail, in their order; None for one that does not fit even alone."""
    logits = _attempt(model, batch)
    if logits is None:
        # Out of the `except`: its traceback held the tensors that filled the memory.
        model.free_memory()
        logits = _attempt(model, batch)
    if logits is not None:
        return [*logits]
    _log.warning("a batch of %d documents does not fit in memory", len(batch.suffixes))
    middle = len(batch.suffixes) // 2
    if not middle:
        return [None]
    return score(model, _part(batch, 0, middle)) + score(
        model, _part(batch, middle, len(batch.suffixes))
    )


def _attempt(model: BatchModel, batch: TokenBatch) -> list[float] | None:
    try:
        return model.score(batch)
    except MemoryError:
        return None
    except RuntimeError as problem:
        if not any(sign in str(problem) for sign in _SIGNS):
            raise
        return None


def _part(batch: TokenBatch, start: int, stop: int) -> TokenBatch:
    """Some of the tails, and only the heads that they need."""
    tails = batch.suffixes[start:stop]
    places = {head: place for place, head in enumerate(sorted({head for head, _ in tails}))}
    return TokenBatch(
        prefixes=[batch.prefixes[head] for head in places],
        suffixes=[(places[head], ids) for head, ids in tails],
    )
