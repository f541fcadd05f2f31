"""What scores are made by, so that whoever keeps them can say what they were."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property

from rankd import __version__
from rankd.engines.base import EngineInfo


@dataclass(frozen=True)
class Provenance:
    """Where all of it is the same, equal requests get the same scores, rounding aside; where
    `deterministic` is true, to the last bit.

    Attributes:
        version: of rankd.
        revision: changes with the model's configuration and weights.
        template: changes with the prompt; see `PromptEncoder.template`.
        deterministic: what the engine promises; `arithmetic` is what that holds for.
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
        """For a metric, whose labels are all strings."""
        return {**asdict(self), "deterministic": str(self.deterministic).lower()}

    @cached_property
    def header(self) -> dict[str, str]:
        """`rankd: version="0.1.0", model="builtin", ...`, a dictionary of RFC 9651."""
        members = (f"{name}={_item(value)}" for name, value in asdict(self).items())
        return {"rankd": ", ".join(members)}


def _item(value: str | bool) -> str:
    if isinstance(value, bool):
        return "?1" if value else "?0"
    if value.isascii() and value.isprintable():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    # Names of folders are anything, and strings are ASCII: this is a display string.
    shown = (
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'%"' else f"%{byte:02x}"
        for byte in value.encode(errors="replace")
    )
    return f'%"{"".join(shown)}"'
