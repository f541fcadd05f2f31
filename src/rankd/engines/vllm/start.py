"""From a checkpoint and settings to an engine that is ready."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rankd.config.redaction import redacted
from rankd.config.settings import Settings
from rankd.engines.base import EngineInfo
from rankd.engines.vllm.args import accepted, engine_args
from rankd.engines.vllm.compatibility import refuse_known_bad
from rankd.engines.vllm.engine import BATCHES_PER_STEP, VllmEngine
from rankd.engines.vllm.profiles import profile_for
from rankd.engines.vllm.versions import installed
from rankd.errors import BadModel, SetupError
from rankd.models.checkpoint import Checkpoint
from rankd.telemetry.logs import dict_config
from rankd.telemetry.startup import StartupStep, report_step
from rankd.types import AnswerTokenIds

_log = logging.getLogger("rankd")

_ENVIRONMENT = {
    # A server that people run for themselves does not report about them.
    "VLLM_NO_USAGE_STATS": "1",
    # Standard output belongs to the commands: `rankd rerank` prints answers there.
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}


@asynccontextmanager
async def open_engine(
    checkpoint: Checkpoint, answers: AnswerTokenIds, settings: Settings
) -> AsyncIterator[VllmEngine]:
    """Start vLLM and wait until its model is loaded.

    Raises:
        BadSettings, BadModel: the combination is known to fail or to score wrong.
        SetupError: vLLM did not start; the log above says why.
    """
    release = installed()
    profile = profile_for(settings.device, release)
    args = engine_args(checkpoint, settings, profile, release)
    refuse_known_bad(checkpoint, profile, release, args)
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    report_step(
        StartupStep(
            f"starting vLLM for {checkpoint.name}; it says itself how far it is", draws_itself=True
        )
    )
    with _logging_as_we_do(settings):
        # In a frame of its own: vLLM's imports keep the frames they are called from, and with
        # them whatever these come to hold.
        library = _import_vllm()
        engine = await _open(library, checkpoint, profile.device, args, settings)
        try:
            yield engine
        finally:
            engine.close()


# What an operator sets to log vLLM otherwise.
_LOGGING = ("VLLM_LOGGING_CONFIG_PATH", "VLLM_CONFIGURE_LOGGING")


@contextmanager
def _logging_as_we_do(settings: Settings) -> Iterator[None]:
    """vLLM's lines, those of its processes too, look like ours unless the operator wants others."""
    if any(name in os.environ for name in _LOGGING):
        yield
        return
    level = os.environ.get("VLLM_LOGGING_LEVEL", "INFO")
    with TemporaryDirectory(prefix="rankd-") as folder:
        file = Path(folder, "logging.json")
        file.write_text(json.dumps(dict_config(settings.log_format, {"vllm": level})))
        # A process that starts later reads it, too.
        os.environ[_LOGGING[0]] = str(file)
        try:
            yield
        finally:
            del os.environ[_LOGGING[0]]


@dataclass(frozen=True, slots=True)
class _Vllm:
    """What we use of it, by paths that are the same from 0.18 to 0.33."""

    args: Any
    llm: Any
    params: Any
    usage: Any
    version: str


def _import_vllm() -> _Vllm:
    import vllm
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.pooling_params import PoolingParams
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    return _Vllm(AsyncEngineArgs, AsyncLLM, PoolingParams, UsageContext, vllm.__version__)


async def _open(
    library: _Vllm, checkpoint: Checkpoint, device: str, args: dict[str, Any], settings: Settings
) -> VllmEngine:
    llm = await _started(library, args, settings)
    if "classify" not in await llm.get_supported_tasks():
        llm.shutdown()
        raise BadModel(f"vLLM does not take {checkpoint.name} for a reranker")
    info = EngineInfo(
        name="vllm",
        version=library.version,
        model=checkpoint.name,
        revision=checkpoint.revision,
        device=device,
        dtype=str(llm.model_config.dtype).removeprefix("torch."),
        max_tokens=args["max_model_len"],
        batch_tokens=args["max_num_batched_tokens"] // BATCHES_PER_STEP,
    )
    # Logits: a sigmoid would round what is nearly 1 to 1.
    return VllmEngine(info, llm, library.params(task="classify", use_activation=False))


async def _started(library: _Vllm, args: dict[str, Any], settings: Settings) -> Any:
    """In a thread, because a server whose engine is started again still answers probes."""
    starting = asyncio.create_task(asyncio.to_thread(_start, library, args, settings))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # A thread cannot be stopped, and its processes must not be left behind.
        await asyncio.wait([starting])
        if not starting.exception():
            starting.result().shutdown()
        raise


def _start(library: _Vllm, args: dict[str, Any], settings: Settings) -> Any:
    fields = {field.name for field in dataclasses.fields(library.args)}
    given = accepted(args, fields, asked=settings.vllm_args)
    dropped = sorted(args.keys() - given.keys())
    _log.debug("vLLM's arguments: %s; dropped: %s", redacted("", given), dropped)
    try:
        # Without a running loop `AsyncLLM` binds itself to the one that first awaits it.
        return library.llm.from_engine_args(
            library.args(**given),
            # Its own context for embedders gives 2048 tokens and 128 pairs on any GPU.
            usage_context=library.usage.OPENAI_API_SERVER,
        )
    except (RuntimeError, ValueError, TypeError, OSError, ImportError) as problem:
        raise SetupError(f"vLLM did not start: {_sentence(problem)}") from problem


def _sentence(problem: Exception) -> str:
    lines = str(problem).strip().splitlines()
    return " ".join(line.strip() for line in lines[:3]) or type(problem).__name__
