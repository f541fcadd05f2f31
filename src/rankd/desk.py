"""What a route asks for by type: the ranker, and the name it is served under."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Annotated, cast

from fastapi import Depends, Request
from starlette.types import Scope

from rankd.errors import UnknownModel
from rankd.ranker import Ranker
from rankd.types import Ask

# What clients send when nobody chose a model.
_NO_NAME = frozenset({"", "default", "default/not-specified"})


@dataclass(frozen=True)
class Desk:
    """One served model.

    Attributes:
        name: what answers call it and clients send.
        aliases: other names that mean it, such as the folder it was loaded from.
        strict: refuse requests that name another model. Otherwise it answers them all:
            many clients have another vendor's name built in.
        needs_key: whether requests must carry a key; some clients ask before they send it.
    """

    ranker: Ranker
    name: str
    aliases: frozenset[str] = frozenset()
    strict: bool = False
    needs_key: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    def accept_model(self, model: str | None) -> None:
        """Raises `UnknownModel` when a request names another model, and that matters here."""
        if not self.strict or model is None or model in _NO_NAME or self.is_called(model):
            return
        raise UnknownModel(f"model {model!r} is not served here; use {self.name!r}", param="model")

    def is_called(self, model: str) -> bool:
        return model == self.name or model in self.aliases

    def name_for(self, model: str | None) -> str:
        """The model's name as this client knows it."""
        return model or self.name


# Where the door notes the prefix that forces a dialect.
PREFIX = "rankd.prefix"

# Where it notes a digest of the key that it let in.
CALLER = "rankd.caller"


def signed(ask: Ask, scope: Scope, user: str | None = None) -> Ask:
    """The ask with whose it is: the key that came with it, and the user it names."""
    return replace(ask, caller=scope.get(CALLER, ""), user=user or "")


def desk_of(request: Request) -> Desk:
    return cast(Desk, request.app.state.desk)


DeskDep = Annotated[Desk, Depends(desk_of)]
