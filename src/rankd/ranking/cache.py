"""The score cache: logits of query-document pairs, by a digest of what the model reads.

A key is a digest of the pair's token ids and of everything else that decides the logit
(`identity`). The token ids cover template, tokenizer and truncation. A hit returns the
computed logit, bit for bit.
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

# Bytes of memory for one score: key, logit, expiry and their slots in two dictionaries, about
# 300; the rest is slack of dictionaries that have just grown. `test_cache.py` measures it.
ENTRY_BYTES = 512

# Keys of requests with more tokens are computed off the event loop: that takes 0.5 ms or more.
_MAX_INLINE_TOKENS = 50_000


# Seconds that a score is kept.
TTL_SECONDS = 3600


class Store(Protocol):
    """Keeps logits by key. It may drop any of them at any time."""

    async def get(self, keys: Sequence[bytes]) -> Mapping[bytes, float]:
        """The stored logits; keys without one are left out."""
        ...

    def put(self, logits: Mapping[bytes, float]) -> None:
        """Store logits, now or a little later."""
        ...


class MemoryStore:
    """The most recently used logits, in this process (LRU).

    Args:
        max_bytes: memory for all of them.
        ttl: seconds that a logit is kept after it was stored; reads do not extend them.
        clock: a monotonic clock, in seconds.
    """

    def __init__(
        self, max_bytes: int, ttl: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # Not `TTLCache`: it drops all expired entries at once, which can block the event loop
        # for 0.15 s. Here an expired entry is dropped when it is read or displaced.
        self._entries: LRUCache[bytes, tuple[float, float]] = LRUCache(max_bytes // ENTRY_BYTES)
        self._ttl = ttl
        self._clock = clock

    @property
    def size(self) -> int:
        """Bytes of memory in use."""
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
        metrics.CACHE_BYTES.set(len(self._entries) * ENTRY_BYTES)


class ScoreCache:
    """Stores in the order they are asked, the fastest first. Without stores it keeps nothing.

    Args:
        identity: digest of everything but the token ids that decides a logit; see `identity`.

    Attributes:
        is_enabled: whether it has any store.
    """

    def __init__(self, stores: Sequence[Store] = (), identity: bytes = b"") -> None:
        self.is_enabled = bool(stores)
        self._stores = stores
        self._identity = identity

    async def keys(self, prompts: Sequence[Prompt]) -> list[bytes]:
        """One key for each prompt, in order; equal prompts have equal keys."""
        if sum([len(prompt.suffix) for prompt in prompts]) < _MAX_INLINE_TOKENS:
            return pair_keys(prompts, self._identity)
        return await asyncio.to_thread(pair_keys, prompts, self._identity)

    async def look_up(self, keys: Iterable[bytes]) -> dict[bytes, float]:
        """The cached logits of these keys. What a slower store has is copied to faster ones."""
        found: dict[bytes, float] = {}
        missing = list(keys)
        for index, store in enumerate(self._stores):
            hits = await store.get(missing)
            for faster in self._stores[:index]:
                faster.put(hits)
            found |= hits
            missing = [key for key in missing if key not in hits]
            if not missing:
                break
        if self._stores:
            metrics.CACHE_HITS.inc(len(found))
            metrics.CACHE_MISSES.inc(len(missing))
        return found

    def store(self, logits: Mapping[bytes, float]) -> None:
        """Put logits into every store."""
        for store in self._stores:
            store.put(logits)


def pair_keys(prompts: Sequence[Prompt], identity: bytes) -> list[bytes]:
    """Sixteen bytes for each prompt, in order. A prefix that prompts share is hashed once."""
    keys = []
    prefix: tuple[int, ...] | None = None
    prefix_hash = blake2b(digest_size=16)
    for prompt in prompts:
        if prompt.prefix is not prefix:
            prefix = prompt.prefix
            prefix_hash = blake2b(identity, digest_size=16)
            prefix_hash.update(len(prefix).to_bytes(4, "little"))  # Where the suffix begins.
            prefix_hash.update(array("I", prefix))
        key = prefix_hash.copy()
        key.update(array("I", prompt.suffix))
        keys.append(key.digest())
    return keys


def identity(model: str, info: EngineInfo, answers: AnswerTokenIds, settings: Settings) -> bytes:
    """A digest of everything but the token ids that decides a logit.

    Args:
        model: changes with weights and configuration.
        answers: token ids of yes and no.
    """
    facts = {
        "rankd": __version__,  # Another release may compute other logits.
        "model": model,
        "answers": list(answers),
        "engine": [info.name, info.version, info.device, info.dtype],
        "vllm_args": settings.vllm_args,
    }
    if settings.deterministic:
        # A shared store must return only logits with the same bits.
        facts["deterministic"] = info.arithmetic
    encoded = orjson.dumps(facts, default=str, option=orjson.OPT_SORT_KEYS)
    return blake2b(encoded, digest_size=32).digest()


@asynccontextmanager
async def open_cache(
    checkpoint: Checkpoint, info: EngineInfo, answers: AnswerTokenIds, settings: Settings
) -> AsyncIterator[ScoreCache]:
    """The cache with the stores in the settings: memory, Redis, both or none.

    Raises:
        BadSettings: `cache_redis` is not a URL of Redis, or its library is not installed.
    """
    stores: list[Store] = []
    if settings.cache_mb:
        stores.append(MemoryStore(settings.cache_mb * 1024 * 1024, TTL_SECONDS))
    if settings.cache_redis is None:
        yield ScoreCache(stores, identity(checkpoint.revision, info, answers, settings))
        return
    from rankd.ranking.redis_cache import open_redis

    # A shared cache outlives this process and its model. The revision covers only the
    # beginning of each file, so the fingerprint is used there.
    model = await asyncio.to_thread(checkpoint.fingerprint)
    async with open_redis(settings.cache_redis, TTL_SECONDS) as redis:
        stores.append(redis)
        yield ScoreCache(stores, identity(model, info, answers, settings))
