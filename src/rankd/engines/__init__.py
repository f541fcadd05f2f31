"""Engines turn token ids into logits: choose one, and open it.

`registry` lists the engines; importing this package imports none of them.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from rankd.config.settings import Settings
from rankd.engines.base import Engine
from rankd.engines.devices import accelerator, cores
from rankd.engines.registry import ENGINES
from rankd.engines.supervised import OpenEngine, open_supervised
from rankd.errors import BadSettings
from rankd.installing import install_command
from rankd.models.checkpoint import Checkpoint
from rankd.types import AnswerTokenIds

EngineOpener = Callable[[Checkpoint, AnswerTokenIds, Settings], AbstractAsyncContextManager[Engine]]


def choose(settings: Settings) -> str:
    """Name of the engine to open: the one set, or for `auto` the best that is installed.

    Raises:
        BadSettings: its library is not installed, or it does not support `deterministic`.
    """
    name = _best_installed(settings) if settings.engine == "auto" else settings.engine
    engine = ENGINES[name]
    if settings.deterministic and not engine.deterministic:
        raise BadSettings(
            "deterministic: the last bits of vLLM's scores depend on what it batches together "
            "(its batch-invariant mode is a beta for some GPUs and untested for rerankers); "
            "set engine to native, or leave deterministic out"
        )
    if not engine.is_installed():
        raise BadSettings(
            f"the {name} engine needs {engine.requires}, which is not installed: "
            + install_command(engine.extra or name)
        )
    return name


def _best_installed(settings: Settings) -> str:
    """vLLM beside an accelerator, else native: vLLM takes a minute to start."""
    use_accelerator = settings.device != "cpu" and accelerator() is not None
    vllm = ENGINES["vllm"]
    if use_accelerator and not settings.deterministic and vllm.is_installed():
        return vllm.name
    return "native"


def open_engine(
    checkpoint: Checkpoint, answers: AnswerTokenIds, settings: Settings
) -> AbstractAsyncContextManager[Engine]:
    """Open the engine that the settings choose; entering the context waits until it is ready.

    A crashed engine is restarted as often as `settings.engine_restarts` allows.

    Args:
        answers: ids of the answer tokens whose logits are compared.

    Raises:
        BadSettings: see `choose`.
        SetupError: on entering: the engine or its model cannot be used; says why.
    """
    engine = ENGINES[choose(settings)]
    opener: EngineOpener = importlib.import_module(engine.loader).open_engine
    if not engine.supervised:
        return opener(checkpoint, answers, settings)
    if settings.deterministic and not settings.threads:
        # A restarted engine must use as many threads as the first one, whatever is free then.
        settings = settings.model_copy(update={"threads": cores()})
    return open_supervised(
        _same_each_time(opener, checkpoint, answers, settings), answers, settings
    )


def _same_each_time(
    opener: EngineOpener, checkpoint: Checkpoint, answers: AnswerTokenIds, settings: Settings
) -> OpenEngine:
    """Opens an engine; after the first time with the number format that the first one chose.

    The choice is measured, so a restart on a busy machine could choose otherwise. Scores would
    change, and the cache would hold those of both under one key.
    """
    chosen = settings

    @asynccontextmanager
    async def open_once() -> AsyncIterator[Engine]:
        nonlocal chosen
        async with opener(checkpoint, answers, chosen) as engine:
            if engine.info.dtype_reason:
                chosen = settings.model_copy(update={"dtype": engine.info.dtype})
            yield engine

    return open_once
