"""Start vLLM from a checkpoint and settings."""

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
from rankd.engines.vllm.args import engine_args, number_format, supported_args
from rankd.engines.vllm.compatibility import refuse_known_bad
from rankd.engines.vllm.engine import VllmEngine
from rankd.engines.vllm.profiles import DeviceProfile, profile_for
from rankd.engines.vllm.versions import installed
from rankd.errors import BadModel, BadSettings, SetupError
from rankd.models.checkpoint import Checkpoint
from rankd.telemetry.logs import dict_config
from rankd.telemetry.startup import StartupStep, report_step
from rankd.types import AnswerTokenIds

_log = logging.getLogger("rankd")

_ENVIRONMENT = {
    # No usage reports to vLLM's makers.
    "VLLM_NO_USAGE_STATS": "1",
    # Standard output is for the output of commands such as `rankd rerank`.
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}


@asynccontextmanager
async def open_engine(
    checkpoint: Checkpoint, answers: AnswerTokenIds, settings: Settings
) -> AsyncIterator[VllmEngine]:
    """Start vLLM and wait until its model is loaded.

    Raises:
        BadSettings, BadModel: the combination is known to fail or to score wrong.
        SetupError: vLLM did not start; vLLM's log lines say why.
    """
    release = installed()
    profile = profile_for(settings.device, release)
    args = engine_args(checkpoint, answers, settings, profile, release)
    refuse_known_bad(checkpoint, answers, profile, release, args)
    for variable, value in _ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    report_step(
        StartupStep(
            f"starting vLLM for {checkpoint.name}; vLLM shows its own progress", draws_itself=True
        )
    )
    with _vllm_logs_in_our_format(settings):
        # Imported in a function of its own: vLLM's imports keep the calling frame alive, and
        # with it all its local variables.
        library = _import_vllm()
        engine = await _open(library, checkpoint, profile, args, settings, answers.scale)
        try:
            yield engine
        finally:
            engine.close()


# vLLM's own variables for its log; when an operator sets one, rankd leaves the log alone.
_LOGGING_VARIABLES = ("VLLM_LOGGING_CONFIG_PATH", "VLLM_CONFIGURE_LOGGING")


@contextmanager
def _vllm_logs_in_our_format(settings: Settings) -> Iterator[None]:
    """Log lines of vLLM and its processes have rankd's format, unless its variables are set."""
    if any(name in os.environ for name in _LOGGING_VARIABLES):
        yield
        return
    level = os.environ.get("VLLM_LOGGING_LEVEL", "INFO")
    with TemporaryDirectory(prefix="rankd-") as folder:
        file = Path(folder, "logging.json")
        file.write_text(json.dumps(dict_config(settings.log_format, {"vllm": level})))
        # vLLM's processes inherit it.
        os.environ[_LOGGING_VARIABLES[0]] = str(file)
        try:
            yield
        finally:
            del os.environ[_LOGGING_VARIABLES[0]]


@dataclass(frozen=True, slots=True)
class _Vllm:
    """Classes of vLLM that rankd uses; their import paths are the same from 0.18 to 0.33."""

    args: Any
    llm: Any
    params: Any
    usage: Any
    version: str


def _import_vllm() -> _Vllm:
    """Raises BadSettings if a library of the device is missing, such as the driver's."""
    try:
        return _imported()
    except ImportError as problem:
        raise BadSettings(
            f"vLLM is installed, but cannot be loaded: {problem}. A container needs the host's "
            "devices and driver: --gpus all for CUDA, the mounts of docs/ascend.md for Ascend"
        ) from problem


def _imported() -> _Vllm:
    import vllm
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.pooling_params import PoolingParams
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    return _Vllm(AsyncEngineArgs, AsyncLLM, PoolingParams, UsageContext, vllm.__version__)


async def _open(
    library: _Vllm,
    checkpoint: Checkpoint,
    profile: DeviceProfile,
    args: dict[str, Any],
    settings: Settings,
    scale: float,
) -> VllmEngine:
    llm = await _start_in_thread(library, args, settings)
    if "classify" not in await llm.get_supported_tasks():
        llm.shutdown()
        raise BadModel(
            f"vLLM does not support {checkpoint.name} as a reranker; "
            "use a Qwen3-Reranker checkpoint"
        )
    info = EngineInfo(
        name="vllm",
        version=library.version,
        model=checkpoint.name,
        revision=checkpoint.revision,
        device=profile.device,
        dtype=str(llm.model_config.dtype).removeprefix("torch."),
        dtype_reason=number_format(checkpoint, settings, profile).reason,
        max_tokens=args["max_model_len"],
        batch_tokens=min(profile.slot_tokens, args["max_num_batched_tokens"]),
    )
    # Logits instead of probabilities, because a sigmoid rounds values near 1 to 1.
    params = library.params(task="classify", use_activation=False)
    return VllmEngine(info, llm, params, slots=profile.slots, scale=scale)


async def _start_in_thread(library: _Vllm, args: dict[str, Any], settings: Settings) -> Any:
    """Start vLLM in a thread, so that the server answers health probes during a restart."""
    starting = asyncio.create_task(asyncio.to_thread(_start, library, args, settings))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # A thread cannot be cancelled: wait, then end the processes that it started.
        await asyncio.wait([starting])
        if not starting.exception():
            starting.result().shutdown()
        raise


def _start(library: _Vllm, args: dict[str, Any], settings: Settings) -> Any:
    fields = {field.name for field in dataclasses.fields(library.args)}
    supported = supported_args(args, fields, operator_args=settings.vllm_args)
    dropped = sorted(args.keys() - supported.keys())
    _log.debug("vLLM's arguments: %s; dropped: %s", redacted("", supported), dropped)
    try:
        # Created without a running event loop, `AsyncLLM` binds to the loop that first awaits it.
        return library.llm.from_engine_args(
            library.args(**supported),
            # The default context limits steps to 2048 tokens and 128 pairs on any GPU.
            usage_context=library.usage.OPENAI_API_SERVER,
        )
    except (RuntimeError, ValueError, TypeError, OSError, ImportError) as problem:
        raise SetupError(f"vLLM did not start: {_first_lines(problem)}") from problem


def _first_lines(problem: Exception) -> str:
    """The first three lines of the message, as one line."""
    lines = str(problem).strip().splitlines()
    return " ".join(line.strip() for line in lines[:3]) or type(problem).__name__
