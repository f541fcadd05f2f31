"""The served model: its ranker, names, defaults and drain. Routes get it by `ServiceDep`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, cast

from fastapi import Depends, Request

from rankd.errors import ShuttingDown, TooLarge, UnknownModel
from rankd.ranking.client_prompt_policy import ClientPromptPolicy
from rankd.ranking.profiles import Profiles
from rankd.ranking.provenance import Provenance
from rankd.ranking.ranker import Ranker
from rankd.ranking.shadow import ShadowTraffics
from rankd.telemetry.timings import StageTimings
from rankd.types import RankRequest, RankResult, ScoredDocument

# Longest text of `tokenize`: some 0.3 s of an encoding thread.
MAX_TOKENIZED_CHARACTERS = 1_000_000

# Of an estimate, for what is admitted before it is encoded.
_CHARACTERS_PER_TOKEN = 4

# Values of `model` that clients send when no model is configured.
_NO_NAME = frozenset({"", "default", "default/not-specified"})


@dataclass
class Drain:
    """The shutdown of a server: admitted requests are answered, later ones are refused.

    Attributes:
        begun: whether the shutdown has begun.
        running: rankings that are not finished yet.
    """

    begun: bool = False
    running: int = 0
    _listeners: list[Callable[[], object]] = field(default_factory=list)

    def begin(self) -> None:
        self.begun = True
        for listener in self._listeners:
            listener()

    def on_begin(self, listener: Callable[[], object]) -> None:
        """Call `listener` when the drain begins; it stops work that no client waits for."""
        self._listeners.append(listener)

    def refuse_when_begun(self) -> None:
        if self.begun:
            raise ShuttingDown("the server is stopping; ask another, or this one later")


@dataclass(frozen=True)
class ModelService:
    """One served model.

    Attributes:
        name: the model's name in requests and responses.
        aliases: other accepted names, such as the folder it was loaded from.
        profiles: presets, configured aliases with their defaults, and calibrations.
        strict: refuse requests that name another model. Otherwise every name is accepted,
            because many clients have another vendor's name built in.
        needs_key: whether requests must carry an API key.
        log_texts: whether queries and documents are logged.
        max_response_bytes: of one answer.
        timeout_ms: timeout of requests that set none; 0: no timeout.
        client_prompts: what is done with prompts that clients bring along.
        shadows: compare a share of requests with a second scoring; None: there are none.
        created: Unix time of the start, in seconds.
    """

    ranker: Ranker
    name: str
    aliases: frozenset[str] = frozenset()
    strict: bool = False
    needs_key: bool = False
    timeout_ms: int = 0
    log_texts: bool = False
    max_response_bytes: int = 64 * 1024 * 1024
    profiles: Profiles = field(default_factory=Profiles)
    client_prompts: ClientPromptPolicy = field(default_factory=ClientPromptPolicy)
    shadows: ShadowTraffics | None = None
    drain: Drain = field(default_factory=Drain)
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def provenance(self) -> Provenance:
        """What scores depend on: model, engine, template. Constant while the server runs."""
        return Provenance.of(self.ranker.engine.info, self.ranker.encoder.template)

    async def rank(
        self,
        requests: Sequence[RankRequest],
        on_result: Callable[[ScoredDocument], None] | None = None,
        timings: StageTimings | None = None,
    ) -> RankResult:
        """Rank the requests of one body; a drain waits until they are finished.

        Args:
            on_result: as in `Ranker.rank_measured`.

        Raises:
            ShuttingDown: the drain has begun.
            RankError: as `Ranker.rank_measured`.
        """
        if self.drain.begun:
            self.drain.refuse_when_begun()
        self.drain.running += 1
        try:
            return await self.ranker.rank_measured(requests, on_result, timings)
        finally:
            self.drain.running -= 1

    async def tokenize(self, text: str, caller: str) -> list[int]:
        """The token ids of a text, without the template; waits and is refused as other work is.

        Raises:
            TooLarge: the text has more than a million characters.
            ShuttingDown: the drain has begun.
            RankError: as `Ranker.rank_measured`.
        """
        self.drain.refuse_when_begun()
        if len(text) > MAX_TOKENIZED_CHARACTERS:
            raise TooLarge(
                f"the prompt has {len(text):,} characters; the limit is "
                f"{MAX_TOKENIZED_CHARACTERS:,}: send it in parts",
                param="prompt",
            )
        tokens = 1 + len(text) // _CHARACTERS_PER_TOKEN
        self.drain.running += 1
        try:
            async with self.ranker.limits.call(caller):
                # Never `done`: encoding is much faster than the scoring whose rate is measured.
                with self.ranker.admission.enter(tokens) as ticket:
                    ticket.admit(tokens)
                    return await self.ranker.encoder.tokenize(text)
        finally:
            self.drain.running -= 1

    async def check(self) -> None:
        """Raises `RankError` when the server cannot score now; cheap enough for a probe."""
        self.drain.refuse_when_begun()
        await self.ranker.scheduler.check()

    def accept_model(self, model: str | None) -> None:
        """Raises `UnknownModel` if `strict` is set and the request names another model."""
        if not self.strict or model is None or model in _NO_NAME or self.is_called(model):
            return
        raise self.unknown(model)

    def unknown(self, model: str) -> UnknownModel:
        names = " or ".join(map(repr, self.names))
        return UnknownModel(f"model {model!r} is not served here; use {names}", param="model")

    @property
    def names(self) -> Sequence[str]:
        """The listed names: the model's name, then the configured aliases."""
        return (self.name, *self.profiles.aliases)

    def is_called(self, model: str) -> bool:
        return model in self.names or model in self.aliases


def service_of(request: Request) -> ModelService:
    return cast(ModelService, request.app.state.service)


async def _service(request: Request) -> ModelService:
    # Asynchronous, because FastAPI runs other dependencies in a thread.
    return service_of(request)


ServiceDep = Annotated[ModelService, Depends(_service)]
