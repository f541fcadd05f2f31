"""Workshop 2: token ids become logits. One file or folder for each engine.

Naming an engine here imports nothing; opening it imports that one only, so the
CPU install needs no vLLM and the vLLM image none of the native engine's extras.
"""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import AbstractAsyncContextManager
from functools import partial

from rankd.config.settings import Settings
from rankd.engines.base import Engine
from rankd.engines.devices import accelerator, cores
from rankd.engines.supervised import open_supervised
from rankd.errors import BadSettings
from rankd.models.checkpoint import Checkpoint
from rankd.types import AnswerTokenIds

# Engine -> the module it cannot do without, and the extra that installs it.
_NEEDS = {"native": ("torch", "native"), "vllm": ("vllm", "vllm"), "fake": (None, None)}


def choose(settings: Settings) -> str:
    """The engine that will run: the one asked for, or the best installed.

    Raises:
        BadSettings: what it needs is not installed, or it is not deterministic and has to
            be; the sentence says what to do.
    """
    name = _best(settings) if settings.engine == "auto" else settings.engine
    if settings.deterministic and name == "vllm":
        raise BadSettings(
            "deterministic: the last bits of vLLM's scores depend on what it batches together "
            "(its batch-invariant mode is a beta for some GPUs, and not tested for rerankers); "
            "set engine to native, or leave deterministic out"
        )
    module, extra = _NEEDS[name]
    if module is not None and not _is_installed(module):
        raise BadSettings(
            f"the {name} engine needs {module}, which is not installed: "
            f"pip install 'rankd[{extra}]'"
        )
    return name


def _best(settings: Settings) -> str:
    """vLLM is worth its minute of starting only where there is an accelerator."""
    if settings.deterministic:
        return "native"
    wanted = settings.device != "cpu" and accelerator() is not None
    return "vllm" if wanted and _is_installed("vllm") else "native"


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def open_engine(
    checkpoint: Checkpoint, answers: AnswerTokenIds, settings: Settings
) -> AbstractAsyncContextManager[Engine]:
    """Open the engine that the settings choose; entering it waits until it is ready.

    It is opened again when it dies, as often as the settings allow.

    Args:
        answers: ids of the two words whose logits are compared.

    Raises:
        SetupError: the engine or its model cannot be used; says why.
    """
    module = importlib.import_module(f"rankd.engines.{choose(settings)}")
    if settings.deterministic and not settings.threads:
        # One that is started again has as many threads as the first, whatever it may use then.
        settings = settings.model_copy(update={"threads": cores()})
    opening = partial(module.open_engine, checkpoint, answers, settings)
    return open_supervised(opening, answers, settings)
