"""vLLM's engine arguments: all set explicitly, because its defaults depend on the device."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson

from rankd.config.settings import Settings
from rankd.config.suggest import nearest
from rankd.engines.number_format import NumberFormat, on_cpu, set_by
from rankd.engines.vllm.profiles import DeviceProfile, kv_cache_bytes
from rankd.engines.vllm.versions import Release
from rankd.errors import BadModel, BadSettings, SetupError
from rankd.models.checkpoint import CLASSIFIER, Checkpoint
from rankd.types import AnswerTokenIds

_log = logging.getLogger("rankd")

# Arguments that `vllm_args` cannot set -> what to do instead, or why.
_RESERVED = {
    "model": "use MODEL",
    "tokenizer": "use MODEL",
    "served_model_name": "use served_model_name",
    "runner": "a reranker always needs pooling",
    "convert": "a reranker always needs classify",
    "hf_overrides": "they load the checkpoint as a reranker",
    "scheduling_policy": "rankd schedules itself",
    "max_model_len": "use max_tokens",
    "dtype": "use dtype",
}

# Arguments that scores depend on: a release of vLLM without one of them is refused.
REQUIRED = frozenset(
    {
        "model",
        "runner",
        "convert",
        "hf_overrides",
        "dtype",
        "max_model_len",
        "max_num_batched_tokens",
        "enable_prefix_caching",
        "enable_chunked_prefill",
        "tensor_parallel_size",
    }
)


def engine_args(
    checkpoint: Checkpoint,
    answers: AnswerTokenIds,
    settings: Settings,
    profile: DeviceProfile,
    release: Release,
) -> dict[str, Any]:
    """All arguments for vLLM; those in the setting `vllm_args` override rankd's.

    Raises:
        BadSettings: `vllm_args` has an argument that only rankd may set.
    """
    for name in settings.vllm_args:
        if name in _RESERVED:
            raise BadSettings(f"vllm_args: {name} is set by rankd; {_RESERVED[name]}")
    if settings.vllm_args.get("trust_remote_code"):
        _log.warning("trust_remote_code: vLLM runs the code that comes with %s", checkpoint.name)
    args = _common(checkpoint, settings) | _by_device(checkpoint, settings, profile, release)
    args["hf_overrides"] = _overrides(checkpoint, answers)
    return args | settings.vllm_args


def supported_args(
    args: Mapping[str, Any], fields: Collection[str], operator_args: Collection[str]
) -> dict[str, Any]:
    """The arguments that the installed release of vLLM has; others are dropped.

    Args:
        fields: names of the fields of vLLM's argument class.
        operator_args: names in the setting `vllm_args`; these are never dropped.

    Raises:
        SetupError: vLLM lacks an argument that scores depend on.
        BadSettings: vLLM lacks an argument in `operator_args`.
    """
    for name in operator_args:
        if name not in fields:
            raise BadSettings(f"vllm_args: vLLM has no argument {name}{nearest(name, fields)}")
    missing = sorted(REQUIRED - set(fields))
    if missing:
        raise SetupError(f"this vLLM has no argument {', '.join(missing)}; rankd cannot use it")
    return {name: value for name, value in args.items() if name in fields}


def _common(checkpoint: Checkpoint, settings: Settings) -> dict[str, Any]:
    return {
        "model": str(checkpoint.path),
        "tokenizer": str(checkpoint.path),
        "served_model_name": [settings.served_model_name or checkpoint.name],
        "runner": "pooling",
        "convert": "classify",
        "max_model_len": min(settings.max_tokens, checkpoint.max_tokens),
        "quantization": None,
        "tensor_parallel_size": 1,
        "data_parallel_size": 1,
        "gpu_memory_utilization": 0.85,
        # First come, first served: rankd decides the order.
        "scheduling_policy": "fcfs",
        # On by default for rerankers in 0.18 and 0.19, with a race condition (vllm#31584).
        "async_scheduling": False,
        # vLLM's metrics, which /metrics shows, but no log line for each request.
        "disable_log_stats": False,
        "enable_log_requests": False,
        # A checkpoint's own code runs only when vllm_args turns it on.
        "trust_remote_code": False,
    }


def _by_device(
    checkpoint: Checkpoint, settings: Settings, profile: DeviceProfile, release: Release
) -> dict[str, Any]:
    max_tokens = min(settings.max_tokens, checkpoint.max_tokens)
    step_tokens = max(profile.batch_tokens, max_tokens)
    args: dict[str, Any] = {
        "dtype": number_format(checkpoint, settings, profile).dtype,
        "max_num_batched_tokens": step_tokens,
        "max_num_seqs": profile.batch_pairs,
        "enable_prefix_caching": profile.prefix_caching,
        "enable_chunked_prefill": profile.chunked_prefill and release.chunked_prefill_is_right,
        "enforce_eager": profile.eager,
    }
    if profile.block_size is not None:
        args["block_size"] = profile.block_size
    if profile.device == "cpu":
        # Room for one step, and as much again for prefixes that are used again.
        args["kv_cache_memory_bytes"] = kv_cache_bytes(
            checkpoint,
            2 * step_tokens,
            bytes_per_value=2 if args["dtype"] in ("bfloat16", "float16") else 4,
        )
    return args


def _overrides(checkpoint: Checkpoint, answers: AnswerTokenIds) -> dict[str, Any]:
    """Overrides that load an original checkpoint as a classifier; none for a converted one."""
    if checkpoint.is_classifier:
        return {}
    tokens = ["no", "yes"]
    if checkpoint.statement.answers is not None:
        tokens = _vocabulary_entries(checkpoint, [answers.no, answers.yes])
    overrides = {"architectures": [CLASSIFIER], "classifier_from_token": tokens}
    if answers.no is None:
        # vLLM's name for: the score is the row of each token, here of one.
        return overrides | {"method": "no_post_processing", "num_labels": 1}
    return overrides | {"is_original_qwen3_reranker": True}


def _vocabulary_entries(checkpoint: Checkpoint, ids: Sequence[int | None]) -> list[str]:
    """The tokens as they are spelled in `tokenizer.json`; vLLM looks up their ids by it.

    Raises:
        BadModel: the vocabulary has no such id.
    """
    spec = orjson.loads((checkpoint.path / "tokenizer.json").read_bytes())
    entries = {token: text for text, token in spec["model"]["vocab"].items()}
    entries |= {token["id"]: token["content"] for token in spec["added_tokens"]}
    wanted = [token for token in ids if token is not None]
    if missing := [token for token in wanted if token not in entries]:
        raise BadModel(
            f"{checkpoint.path / 'tokenizer.json'} has no token {missing[0]}, which vLLM would "
            "look up for the score; use --engine native"
        )
    return [entries[token] for token in wanted]


def number_format(
    checkpoint: Checkpoint, settings: Settings, profile: DeviceProfile
) -> NumberFormat:
    """The argument `dtype` and why; `auto` leaves the choice to vLLM: the checkpoint's dtype."""
    if settings.dtype != "auto":
        return set_by(settings.dtype)
    # Kernels of quantized weights need the dtype they were made for.
    if profile.device != "cpu" or "quantization_config" in checkpoint.config:
        return NumberFormat("auto", "")
    return on_cpu(checkpoint.tensors)
