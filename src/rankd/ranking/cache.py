"""Scores that were computed before, found again by exactly what the model would read.

A key is a digest of the pair's token ids and of everything that decides their logit, so the
template, the tokenizer and the cut are in it without being named. What is found is the logit
that was computed, to the last bit.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import Protocol

import orjson
from cachetools import LRUCache

from rankd import __version__
from rankd.config.settings import Settings
from rankd.engines.base import EngineInfo
from rankd.models.checkpoint import Checkpoint
from rankd.telemetry import metrics
from rankd.types import AnswerTokenIds, Prompt

# What one score takes in memory: key, number, time and their places in two dictionaries.
# About 300; dictionaries that have just grown take the rest. `test_cache.py` weighs it.
ENTRY_BYTES = 512

# Tokens of a request above which its keys are made off the event loop: half a
# millisecond's work.
_MANY_TOKENS = 50_000


# Seconds that a score is kept.
TTL_SECONDS = 3600


class Store(Protocol):
    """Where logits are kept by key."""

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, float]:
        """Those that are there."""
        ...

    def put(self, logits: Mapping[bytes, float]) -> None:
        """Keep them, sooner or later; may forget any of them at any time."""
        ...


class MemoryStore:
    """The scores used last, in this process.

    Args:
        max_bytes: that all of them may take.
        ttl: seconds that a score is kept, however often it is used.
        clock: seconds that only grow.
    """

    def __init__(
        self, max_bytes: int, ttl: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # Not `TTLCache`: after a quiet hour it drops everything in one go, which holds up
        # the event loop for 0.15 s. Here the old ones leave as they are met or displaced.
        self._entries: LRUCache[bytes, tuple[float, float]] = LRUCache(max_bytes // ENTRY_BYTES)
        self._ttl = ttl
        self._clock = clock

    @property
    def size(self) -> int:
        """Bytes that its scores take."""
        return len(self._entries) * ENTRY_BYTES

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, float]:
        now = self._clock()
        found = {}
        for key in keys:
            entry = self._entries.get(key)
            if entry is None:
                continue
            logit, expires = entry
            if now < expires:
                found[key] = logit
            else:
                del self._entries[key]
        return found

    def put(self, logits: Mapping[bytes, float]) -> None:
        expires = self._clock() + self._ttl
        if self._entries.maxsize:
            for key, logit in logits.items():
                self._entries[key] = (logit, expires)
        metrics.CACHE_BYTES.set(self.size)


class ScoreCache:
    """Stores in a row, the nearest first; without any it keeps nothing.

    Args:
        identity: everything beside the token ids that decides a logit; see `identity`.
    """

    def __init__(self, stores: Sequence[Store] = (), identity: bytes = b"") -> None:
        self._stores = stores
        self._identity = identity

    @property
    def is_enabled(self) -> bool:
        """Whether anything is ever found in it."""
        return bool(self._stores)

    async def keys(self, prompts: Sequence[Prompt]) -> list[bytes]:
        """A key for each prompt; equal prompts have equal keys."""
        if sum(len(prompt.suffix) for prompt in prompts) < _MANY_TOKENS:
            return pair_keys(prompts, self._identity)
        return await asyncio.to_thread(pair_keys, prompts, self._identity)

    async def look_up(self, keys: Iterable[bytes]) -> dict[bytes, float]:
        """The logits that are known."""
        found: dict[bytes, float] = {}
        missing = list(keys)
        for place, store in enumerate(self._stores):
            newly = await store.get(missing)
            for nearer in self._stores[:place]:
                nearer.put(newly)
            found |= newly
            missing = [key for key in missing if key not in newly]
            if not missing:
                break
        if self._stores:
            metrics.CACHE_HITS.inc(len(found))
            metrics.CACHE_MISSES.inc(len(missing))
        return found

    def store(self, logits: Mapping[bytes, float]) -> None:
        for store in self._stores:
            store.put(logits)


def pair_keys(prompts: Sequence[Prompt], identity: bytes) -> list[bytes]:
    """Sixteen bytes for each prompt; the head of a request is digested once."""
    keys = []
    head: tuple[int, ...] | None = None
    begun = blake2b(digest_size=16)
    for prompt in prompts:
        if prompt.prefix is not head:
            head = prompt.prefix
            begun = blake2b(identity, digest_size=16)
            begun.update(len(head).to_bytes(4, "little"))  # Where the tail begins.
            begun.update(array("I", head))
        key = begun.copy()
        key.update(array("I", prompt.suffix))
        keys.append(key.digest())
    return keys


def identity(model: str, info: EngineInfo, answers: AnswerTokenIds, settings: Settings) -> bytes:
    """A digest of everything beside the token ids that decides a logit.

    Args:
        model: changes with the weights and the configuration.
        answers: ids of the words that are compared, which the tokenizer decides.
    """
    facts = {
        "rankd": __version__,  # Another release may compute better.
        "model": model,
        "answers": list(answers),
        "engine": [info.name, info.version, info.device, info.dtype],
        "vllm_args": settings.vllm_args,
    }
    if settings.deterministic:
        # Of a shared store only what has the same bits will do.
        facts["deterministic"] = info.arithmetic
    said = orjson.dumps(facts, default=str, option=orjson.OPT_SORT_KEYS)
    return blake2b(said, digest_size=32).digest()


@asynccontextmanager
async def open_cache(
    checkpoint: Checkpoint, info: EngineInfo, answers: AnswerTokenIds, settings: Settings
) -> AsyncIterator[ScoreCache]:
    """The stores that the settings name.

    Raises:
        BadSettings: `cache_redis` is no such URL, or its library is not installed.
    """
    stores: list[Store] = []
    if settings.cache_mb:
        stores.append(MemoryStore(settings.cache_mb * 1024 * 1024, TTL_SECONDS))
    if settings.cache_redis is None:
        yield ScoreCache(stores, identity(checkpoint.revision, info, answers, settings))
        return
    from rankd.ranking.redis_cache import open_redis

    # A shared cache outlives this process and its model: there the quick revision,
    # which looks at the beginning of each file, is not enough.
    model = await asyncio.to_thread(checkpoint.fingerprint)
    async with open_redis(settings.cache_redis, TTL_SECONDS) as redis:
        stores.append(redis)
        yield ScoreCache(stores, identity(model, info, answers, settings))
