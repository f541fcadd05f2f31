"""The arguments of vLLM's engine. Nothing is left to its defaults, which change with the device."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any

from rankd.config.settings import Settings
from rankd.config.suggest import nearest
from rankd.engines.vllm.profiles import DeviceProfile, cache_bytes
from rankd.engines.vllm.versions import Release
from rankd.errors import BadSettings, SetupError
from rankd.models.checkpoint import CLASSIFIER, Checkpoint

_log = logging.getLogger("rankd")

# What makes a reranker of it; settings of ours say the same in another word.
OWN = {
    "model": "MODEL",
    "tokenizer": "MODEL",
    "served_model_name": "served_model_name",
    "runner": "nothing: a reranker is always pooling",
    "convert": "nothing: a reranker is always classify",
    "hf_overrides": "nothing: they make the checkpoint a reranker",
    "scheduling_policy": "nothing: priorities and fairness need it",
    "max_model_len": "max_tokens",
    "dtype": "dtype",
}

# Without one of these the scores would be wrong, or not there.
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
        "scheduling_policy",
    }
)


def engine_args(
    checkpoint: Checkpoint, settings: Settings, profile: DeviceProfile, release: Release
) -> dict[str, Any]:
    """Everything we tell vLLM, the operator's own arguments included.

    Raises:
        BadSettings: an argument that rankd sets by another name.
    """
    for name in settings.vllm_args:
        if name in OWN:
            raise BadSettings(f"vllm_args: {name} is rankd's to set; use {OWN[name]}")
    if settings.vllm_args.get("trust_remote_code"):
        _log.warning("trust_remote_code: vLLM runs the code that comes with %s", checkpoint.name)
    args = _common(checkpoint, settings) | _by_device(checkpoint, settings, profile, release)
    return args | settings.vllm_args


def accepted(
    args: Mapping[str, Any], fields: Collection[str], asked: Collection[str]
) -> dict[str, Any]:
    """Only what this release's argument class has.

    Args:
        fields: names of its fields.
        asked: names that the operator typed, which are never dropped in silence.

    Raises:
        SetupError: it lacks one that scores depend on.
        BadSettings: it lacks one that the operator asked for.
    """
    for name in asked:
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
        "hf_overrides": _overrides(checkpoint),
        "max_model_len": min(settings.max_tokens, checkpoint.max_tokens),
        "quantization": None,
        "tensor_parallel_size": 1,
        "data_parallel_size": 1,
        "gpu_memory_utilization": 0.85,
        "scheduling_policy": "priority",
        # On by default for rerankers in 0.18 and 0.19, where it races (vllm#31584).
        "async_scheduling": False,
        # Its own metrics, in the registry that /metrics shows; their lines in the log are
        # written only for whoever asks.
        "disable_log_stats": False,
        "enable_log_requests": False,
        # Code that comes with a checkpoint runs only for whoever asks in vllm_args.
        "trust_remote_code": False,
    }


def _by_device(
    checkpoint: Checkpoint, settings: Settings, profile: DeviceProfile, release: Release
) -> dict[str, Any]:
    longest = min(settings.max_tokens, checkpoint.max_tokens)
    step = max(profile.batch_tokens, longest)
    args: dict[str, Any] = {
        "dtype": _dtype(checkpoint, settings, profile),
        "max_num_batched_tokens": step,
        "max_num_seqs": profile.batch_pairs,
        "enable_prefix_caching": profile.prefix_caching,
        "enable_chunked_prefill": profile.chunked_prefill and release.chunked_prefill_is_right,
        "enforce_eager": profile.eager,
    }
    if profile.block_size is not None:
        args["block_size"] = profile.block_size
    if profile.device == "cpu":
        # One step, and as much again for heads that come back.
        args["kv_cache_memory_bytes"] = cache_bytes(checkpoint, 2 * step, bytes_each=4)
    return args


def _overrides(checkpoint: Checkpoint) -> dict[str, Any]:
    """How the original checkpoint becomes a classifier; a converted one is one already."""
    if checkpoint.is_classifier:
        return {}
    return {
        "architectures": [CLASSIFIER],
        "classifier_from_token": ["no", "yes"],
        "is_original_qwen3_reranker": True,
    }


def _dtype(checkpoint: Checkpoint, settings: Settings, profile: DeviceProfile) -> str:
    if settings.dtype != "auto":
        return settings.dtype
    # Kernels of quantized weights want the type they were made for.
    return "auto" if "quantization_config" in checkpoint.config else profile.dtype
