"""What a route asks for by type: the ranker, and the name it is served under."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, cast

from fastapi import Depends, Request

from rankd.errors import ShuttingDown, UnknownModel
from rankd.ranking.profiles import Profiles
from rankd.ranking.provenance import Provenance
from rankd.ranking.ranker import Ranker
from rankd.telemetry.timings import StageTimings
from rankd.types import RankRequest, RankResult, ScoredDocument

# What clients send when nobody chose a model.
_NO_NAME = frozenset({"", "default", "default/not-specified"})


@dataclass
class Drain:
    """The end of a server: what was admitted is answered, what comes then is not.

    Attributes:
        begun: whether the server was asked to stop.
        running: rankings that were admitted and have no answer yet.
    """

    begun: bool = False
    running: int = 0
    _listeners: list[Callable[[], object]] = field(default_factory=list)

    def begin(self) -> None:
        self.begun = True
        for end in self._listeners:
            end()

    def on_begin(self, end: Callable[[], object]) -> None:
        """Call this, too, when it begins: work that nobody waits for ends at once."""
        self._listeners.append(end)

    def refuse_when_begun(self) -> None:
        if self.begun:
            raise ShuttingDown("the server is stopping; ask another, or this one later")


@dataclass(frozen=True)
class ModelService:
    """One served model.

    Attributes:
        name: what answers call it and clients send.
        aliases: other names that mean it, such as the folder it was loaded from.
        profiles: further names, each with defaults of its own, and what else is configured
            for requests that do not say.
        strict: refuse requests that name another model. Otherwise it answers them all:
            many clients have another vendor's name built in.
        needs_key: whether requests must carry a key; some clients ask before they send it.
        log_texts: whether the log holds what users asked and what was judged.
        timeout_ms: for which an answer is awaited when the request does not say; 0 is for ever.
    """

    ranker: Ranker
    name: str
    aliases: frozenset[str] = frozenset()
    strict: bool = False
    needs_key: bool = False
    timeout_ms: int = 0
    log_texts: bool = False
    profiles: Profiles = field(default_factory=Profiles)
    drain: Drain = field(default_factory=Drain)
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def provenance(self) -> Provenance:
        """What its scores are made by, for as long as it serves."""
        return Provenance.of(self.ranker.engine.info, self.ranker.encoder.template)

    async def rank(
        self,
        requests: Sequence[RankRequest],
        on_result: Callable[[ScoredDocument], None] | None = None,
        timings: StageTimings | None = None,
    ) -> RankResult:
        """The answer to one request's asks; once begun, it is finished before the server ends.

        Args:
            tell: as that of `Ranker.timed`.

        Raises:
            RankError: the server is stopping, or as `Ranker.timed`.
        """
        if self.drain.begun:
            self.drain.refuse_when_begun()
        self.drain.running += 1
        try:
            return await self.ranker.rank_measured(requests, on_result, timings)
        finally:
            self.drain.running -= 1

    async def check(self) -> None:
        """Raise `RankError` when no score can be had; cheap enough for a probe."""
        self.drain.refuse_when_begun()
        await self.ranker.scheduler.check()

    def accept_model(self, model: str | None) -> None:
        """Raises `UnknownModel` when a request names another model, and that matters here."""
        if not self.strict or model is None or model in _NO_NAME or self.is_called(model):
            return
        raise self.unknown(model)

    def unknown(self, model: str) -> UnknownModel:
        names = " or ".join(map(repr, self.names))
        return UnknownModel(f"model {model!r} is not served here; use {names}", param="model")

    @property
    def names(self) -> Sequence[str]:
        """What is listed: the model's name, then those with defaults of their own."""
        return (self.name, *self.profiles.aliases)

    def is_called(self, model: str) -> bool:
        return model in self.names or model in self.aliases

    def name_for(self, model: str | None) -> str:
        """The model's name as this client knows it."""
        return model or self.name


def service_of(request: Request) -> ModelService:
    return cast(ModelService, request.app.state.service)


async def _service(request: Request) -> ModelService:
    # FastAPI runs what is not asynchronous in a thread.
    return service_of(request)


ServiceDep = Annotated[ModelService, Depends(_service)]
