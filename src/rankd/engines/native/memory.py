"""Split a batch that does not fit in memory, down to single prompts."""

from __future__ import annotations

import logging
from typing import Protocol

from rankd.engines.native.framing import TokenBatch

_log = logging.getLogger("rankd")

# Parts of torch's RuntimeError messages: CPU ("can't allocate memory", "not enough memory"),
# CUDA and NPU ("out of memory"), oneDNN (the last three).
_OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory", "not enough memory"),
    *("could not create a memory", "could not create a primitive", "could not execute a primitive"),
)


class BatchModel(Protocol):
    def score(self, batch: TokenBatch) -> list[float]: ...

    def free_memory(self) -> None: ...


def score(model: BatchModel, batch: TokenBatch) -> list[float | None]:
    """One logit for each suffix, in their order; None for one that does not fit even alone.

    When memory runs out: free the cache and retry, then halve the batch.
    """
    logits = _try(model, batch)
    if logits is None:
        # Outside the `except` block, whose traceback keeps the large tensors alive.
        model.free_memory()
        logits = _try(model, batch)
    if logits is not None:
        return [*logits]
    _log.warning("a batch of %d documents does not fit in memory", len(batch.suffixes))
    middle = len(batch.suffixes) // 2
    if not middle:
        return [None]
    return score(model, _part(batch, 0, middle)) + score(
        model, _part(batch, middle, len(batch.suffixes))
    )


def _try(model: BatchModel, batch: TokenBatch) -> list[float] | None:
    """The logits, or None when memory ran out."""
    try:
        return model.score(batch)
    except MemoryError:
        return None
    except RuntimeError as problem:
        if not any(part in str(problem) for part in _OUT_OF_MEMORY):
            raise
        return None


def _part(batch: TokenBatch, start: int, stop: int) -> TokenBatch:
    """Suffixes `start` to `stop`, and only the prefixes that they need."""
    suffixes = batch.suffixes[start:stop]
    used = sorted({prefix_index for prefix_index, _ in suffixes})
    new_index = {prefix_index: index for index, prefix_index in enumerate(used)}
    return TokenBatch(
        prefixes=[batch.prefixes[prefix_index] for prefix_index in used],
        suffixes=[(new_index[prefix_index], ids) for prefix_index, ids in suffixes],
    )
