"""Provenance of scores: version, model, template, engine and device.

It is in a header of each ranking, in `/version` and in a metric. People who store scores can
store it with them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

from rankd import __version__
from rankd.engines.base import EngineInfo


@dataclass(frozen=True)
class Provenance:
    """What scores were computed with.

    Servers with equal provenance give equal scores to equal requests, up to rounding; if
    `deterministic` is true, bit for bit.

    Attributes:
        version: version of rankd.
        revision: changes with the model's configuration and weights.
        template: changes with the prompt; see `PromptEncoder.template`.
        arithmetic: what scores are computed with; if `deterministic`, they have the same
            bits wherever this is the same.
        deterministic: whether the engine computes reproducibly.
    """

    version: str
    model: str
    revision: str
    template: str
    engine: str
    device: str
    dtype: str
    arithmetic: str
    deterministic: bool

    @classmethod
    def of(cls, info: EngineInfo, template: str) -> Provenance:
        return cls(
            version=__version__,
            model=info.model,
            revision=info.revision,
            template=template,
            engine=info.name,
            device=info.device,
            dtype=info.dtype,
            arithmetic=info.arithmetic or f"{info.name} {info.version}".rstrip(),
            deterministic=info.deterministic,
        )

    @property
    def labels(self) -> dict[str, str]:
        """All fields as strings, for the labels of a metric."""
        return {**asdict(self), "deterministic": str(self.deterministic).lower()}

    @cached_property
    def header(self) -> dict[str, str]:
        """`rankd: version="0.1.0", model="builtin", ...`, a dictionary of RFC 9651."""
        members = (f"{name}={_item(value)}" for name, value in asdict(self).items())
        return {"rankd": ", ".join(members)}


def _item(value: str | bool) -> str:
    """An item of RFC 9651: a boolean, a string, or a display string if it is not ASCII."""
    if isinstance(value, bool):
        return "?1" if value else "?0"
    if value.isascii() and value.isprintable():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    # A model named after its folder may hold any character.
    encoded = (
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'%"' else f"%{byte:02x}"
        for byte in value.encode(errors="replace")
    )
    return f'%"{"".join(encoded)}"'
