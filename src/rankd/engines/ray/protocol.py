"""What a replica and a front tell each other, beside the batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple, Self

from rankd.engines.base import EngineInfo
from rankd.types import AnswerTokenIds

# Changes when a front could misunderstand a replica of another release.
PROTOCOL = 1

# First byte of a replica's answer to a batch. LOGITS: packed logits follow; otherwise a message.
LOGITS = b"L"
DIED = b"D"  # The engine died while it had this batch.
AWAY = b"A"  # The engine restarts or is down; the batch was not computed.
FAILED = b"F"  # A bug.

# What must be equal in all replicas. Names of model and device may differ between machines.
_COMPARED = (
    *("name", "version", "dtype", "max_tokens", "batch_tokens"),
    *("deterministic", "arithmetic"),
)


class Pong(NamedTuple):
    """A replica's answer to a ping: the slots of its engine; 0 while the engine restarts."""

    slots: int
    eager: int


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """What scores of a replica depend on.

    Attributes:
        fingerprint: changes with any bit of the checkpoint, see `Checkpoint.fingerprint`.
        answers: of the checkpoint.
        engine: of its engine.
        slots, eager: of its engine.
        node: address of its machine, for people.
    """

    fingerprint: str
    answers: AnswerTokenIds
    engine: EngineInfo
    slots: int
    eager: int
    node: str = ""
    protocol: int = PROTOCOL

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "answers": [*self.answers]}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Self:
        """The reverse of `as_json`; fields of later releases are left out."""
        engine = {field.name for field in fields(EngineInfo)}
        given = {name: value for name, value in values["engine"].items() if name in engine}
        own = {field.name: values[field.name] for field in fields(cls) if field.name in values}
        answers = AnswerTokenIds(*values["answers"])
        return cls(**{**own, "answers": answers, "engine": EngineInfo(**given)})

    def difference(self, other: ReplicaFacts) -> str:
        """The first difference that changes scores or limits; empty if there is none."""
        if self.protocol != other.protocol:
            return "it runs a release of rankd with another protocol"
        if self.fingerprint != other.fingerprint:
            return "its checkpoint differs"
        if self.answers != other.answers:
            return f"its answer tokens are {self.answers}, not {other.answers}"
        for name in _COMPARED:
            own, expected = getattr(self.engine, name), getattr(other.engine, name)
            if own != expected:
                return f"its {name} is {own!r}, not {expected!r}"
        return ""
