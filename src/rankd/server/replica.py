"""The program of a replica: an engine in a Ray Serve deployment, without HTTP.

`build` makes the application, for `rankd ray deploy` and for files of `serve deploy`
(`import_path: rankd.server.replica:build`). `engines/ray` is the front's side.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import ray
from ray import serve
from ray.serve.config import RequestRouterConfig

from rankd.config.settings import Settings
from rankd.config.sources import load
from rankd.context import REQUEST_ID
from rankd.engines.base import PromptsTooLarge
from rankd.engines.packing import pack_logits, unpack_prompts
from rankd.engines.ray import protocol
from rankd.engines.ray.cluster import DEPLOYMENT
from rankd.engines.ray.protocol import Pong, ReplicaFacts
from rankd.errors import EngineDied, EngineDown, EngineRestarting
from rankd.ranking.scheduler import Speed
from rankd.server.app import open_ranker
from rankd.telemetry import logs
from rankd.types import Prompt

_log = logging.getLogger("rankd")

# The settings that a replica's scores, speed and log depend on.
_SETTINGS = {
    *("model", "revision", "engine", "device", "dtype", "threads", "batch_tokens"),
    *("deterministic", "engine_restarts", "engine_stuck_seconds", "vllm_args", "max_tokens"),
    *("log_level", "log_format"),
}

# Seconds after which a front that sends no pings counts as gone, with all that waited in it.
_FRONT_SECONDS = 5.0


# The deployment's options; `serve deploy` files may set others.
_OPTIONS: dict[str, Any] = {
    # Fronts admit, queue and refuse; Serve would answer with errors of its own.
    "max_ongoing_requests": 100_000,
    "health_check_period_s": 2,
    "health_check_timeout_s": 10,
    "graceful_shutdown_timeout_s": 45,
    "graceful_shutdown_wait_loop_s": 0.5,
    # A wrong model is wrong each time.
    "max_constructor_retry_count": 3,
    # In an update the new replica is ready before the old one stops, where the cluster has room.
    "max_surge_percent": 100,
    "request_router_config": RequestRouterConfig(
        request_router_class="rankd.engines.ray.router.ListingRouter"
    ),
}


class ScoringReplica:
    """Scores the batches of fronts, with the engine that the settings choose.

    Args:
        values: settings, by name.
    """

    async def __init__(self, values: Mapping[str, Any]) -> None:  # type: ignore[misc]
        # Scores are cached in the fronts.
        settings = Settings(**{**values, "cache_mb": 0, "cache_redis": None})
        _configure_logging(settings)
        self._stack = AsyncExitStack()
        checkpoint, ranker = await self._stack.enter_async_context(open_ranker(settings))
        self._engine = engine = ranker.engine
        fingerprint = await asyncio.to_thread(checkpoint.fingerprint)
        self._facts = ReplicaFacts(
            fingerprint,
            ranker.encoder.answers,
            engine.info,
            engine.slots.count,
            engine.slots.eager,
            node=ray.util.get_node_ip_address(),
        )
        self._slots = asyncio.Semaphore(engine.slots.count)
        self._speed = Speed()
        self._outstanding = 0
        self._fronts: dict[str, tuple[float, int]] = {}

    def record_replica_metadata(self) -> dict[str, Any]:
        """For the fronts, which compare it before they send a batch."""
        return self._facts.as_json()

    async def score(self, body: bytes, request_ids: str) -> bytes:
        """Score one batch.

        Args:
            body: of `pack_prompts`.
            request_ids: for log lines.

        Returns:
            One byte of `protocol`, and packed logits or a message.
        """
        REQUEST_ID.set(request_ids)
        tokens = len(body) // 4
        self._outstanding += tokens
        try:
            async with self._slots:
                sent = time.monotonic()
                answer = await self._answer(_prompts(body))
                self._speed.add(tokens, sent=sent)
        except asyncio.CancelledError:
            _log.debug("a batch of %d tokens was abandoned", tokens)
            raise
        finally:
            self._outstanding -= tokens
        _log.debug("a batch of %d tokens was scored", tokens)
        return answer

    async def _answer(self, prompts: Sequence[Prompt]) -> bytes:
        try:
            return protocol.LOGITS + pack_logits(await self._engine.score(prompts))
        except PromptsTooLarge as problem:
            return protocol.LOGITS + pack_logits(problem.logits)
        except EngineDied as problem:
            kind, message = protocol.DIED, problem.message
        except EngineDown as problem:
            kind, message = protocol.AWAY, problem.message
        except Exception as problem:
            _log.exception("a batch failed")
            kind, message = protocol.FAILED, f"{type(problem).__name__}: {problem}"
        return kind + message.encode()

    async def ping(self, front: str, waiting_tokens: int) -> Pong:
        """Answer at once, also while the engine computes.

        Args:
            front: any name that is that of one front.
            waiting_tokens: this replica's share of the tokens that wait there.
        """
        self._fronts[front] = (time.monotonic(), waiting_tokens)
        return Pong(self._engine.slots.count, self._engine.slots.eager)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `WaitingTokensPolicy` reads."""
        since = time.monotonic() - _FRONT_SECONDS
        self._fronts = {name: one for name, one in self._fronts.items() if one[0] > since}
        waiting = sum(tokens for _, tokens in self._fronts.values())
        return {
            "waiting_tokens": float(self._outstanding + waiting),
            "tokens_per_second": self._speed.tokens_per_second,
        }

    async def check_health(self) -> None:
        """Serve replaces a replica whose engine is not restarted any more."""
        try:
            await self._engine.check()
        except EngineRestarting:
            return

    async def __del__(self) -> None:
        await self._stack.aclose()


def build(args: Mapping[str, Any], **options: Any) -> serve.Application:
    """The application for Ray Serve.

    Args:
        args: settings of the replicas by name, such as `model` and `engine`. Variables and files of
            the machine that deploys are not read.
        options: of the deployment, under Serve's names; they override `_OPTIONS`.

    Raises:
        BadSettings: an unknown name, or a value of the wrong kind.
    """
    settings = load(args, environment={})
    # A file may be for fronts, too: replicas get no secrets, and an engine of their own.
    values = settings.model_dump(mode="json", exclude_unset=True, include=_SETTINGS)
    if settings.engine == "ray":
        del values["engine"]
    return application(ScoringReplica, options, values)


def application(
    replica: type[ScoringReplica], options: Mapping[str, Any], *arguments: Any
) -> serve.Application:
    """An application of replicas of a class; arguments are those of its constructor."""
    # Not a decorator: the class would be pickled by value, with all that it uses.
    deployment = serve.deployment(name=DEPLOYMENT, **{**_OPTIONS, **options})(replica)
    return deployment.bind(*arguments)


def _prompts(body: bytes) -> list[Prompt]:
    batch = unpack_prompts(body)
    prefixes = [tuple(prefix) for prefix in batch.prefixes]
    return [Prompt(prefixes[index], tuple(suffix)) for index, suffix in batch.suffixes]


def _configure_logging(settings: Settings) -> None:
    """Log to this process's standard error, which Ray writes to a file."""
    _log.handlers = [logs.handler(settings.log_format)]
    _log.setLevel(settings.log_level.upper())
    _log.propagate = False
