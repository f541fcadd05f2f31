"""The list of engines. Everything that names engines derives from it.

An engine's module is imported only when the engine is opened: the CPU install needs no vLLM,
and the vLLM image needs none of the native engine's libraries.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine.

    Attributes:
        name: value of the setting `engine`.
        description: what computes the scores, in a few words.
        loader: module whose `open_engine(checkpoint, answers, settings)` opens the engine.
        requires: module that must be installed; None when nothing is.
        extra: rankd's extra that installs it, as in `pip install 'rankd[extra]'`.
        deterministic: supports the setting `deterministic`.
        supervised: rankd restarts it when it dies; False: it recovers by itself.
    """

    name: str
    description: str
    loader: str
    requires: str | None = None
    extra: str | None = None
    deterministic: bool = True
    supervised: bool = True

    def is_installed(self) -> bool:
        """Whether the required module can be found; it is not imported."""
        return self.requires is None or find_spec(self.requires) is not None


_SPECS = (
    EngineSpec(
        name="native",
        description="PyTorch in a worker process",
        loader="rankd.engines.native",
        requires="torch",
        extra="native",
    ),
    EngineSpec(
        name="vllm",
        description="vLLM's AsyncLLM",
        loader="rankd.engines.vllm",
        requires="vllm",
        extra="vllm",
        deterministic=False,
    ),
    EngineSpec(
        name="ray",
        description="replicas of one of these engines on a Ray cluster",
        loader="rankd.engines.ray",
        requires="ray",
        extra="ray",
        supervised=False,
    ),
    EngineSpec(
        name="fake",
        description="made-up scores without a model, for tests",
        loader="rankd.engines.fake",
    ),
)

ENGINES: dict[str, EngineSpec] = {spec.name: spec for spec in _SPECS}
