"""Combinations that are known to fail or, worse, to score wrong; each with its reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from rankd.engines.vllm.profiles import DeviceProfile
from rankd.engines.vllm.versions import Release, known
from rankd.errors import BadModel, BadSettings
from rankd.models.checkpoint import Checkpoint

# More ranks than this would split the vocabulary before the row of "yes".
_TENSOR_PARALLEL = (1, 2, 4, 8)


def refuse_known_bad(
    checkpoint: Checkpoint, profile: DeviceProfile, release: Release, args: Mapping[str, Any]
) -> None:
    """Say why a combination cannot give right scores.

    Raises:
        BadSettings, BadModel: it cannot.
    """
    _refuse_sizes(args)
    _refuse_quantized_head(checkpoint, args)
    if not release.chunked_prefill_is_right and args["enable_chunked_prefill"]:
        raise BadSettings(
            f"enable_chunked_prefill scores long pairs wrong in vLLM {release.text} "
            "(fixed in 0.26, vllm#48831); leave it off"
        )
    if profile.device == "npu":
        _refuse_on_npu(checkpoint, release, args)


def _refuse_sizes(args: Mapping[str, Any]) -> None:
    ranks = args["tensor_parallel_size"]
    if ranks not in _TENSOR_PARALLEL:
        raise BadSettings(f"tensor_parallel_size = {ranks}: must be 1, 2, 4 or 8")
    step, longest = args["max_num_batched_tokens"], args["max_model_len"]
    if step < longest:
        raise BadSettings(
            f"max_num_batched_tokens = {step}: a pair of max_tokens = {longest} must fit in one "
            "step, or long pairs may be read before they are computed"
        )


def _refuse_quantized_head(checkpoint: Checkpoint, args: Mapping[str, Any]) -> None:
    held = checkpoint.config.get("quantization_config") or {}
    method = args.get("quantization") or held.get("quant_method")
    if method == "bitsandbytes":
        raise BadSettings(
            "bitsandbytes quantizes the head the score is read from (vllm#33970); "
            "use AWQ, GPTQ or FP8"
        )
    if held.get("lm_head") and not checkpoint.is_classifier:
        raise BadModel(
            f"{checkpoint.name} has a quantized lm_head, from which no score can be read; "
            "quantize it again with lm_head left out"
        )


def _refuse_on_npu(checkpoint: Checkpoint, release: Release, args: Mapping[str, Any]) -> None:
    if str(args.get("kv_cache_dtype", "auto")).startswith("int8") or _has_int8_cache(checkpoint):
        raise BadSettings(
            "an int8 KV cache on NPU sends rerankers to a kernel that is not causal: "
            "scores would be wrong"
        )
    if release.ascend is None:
        return
    if args["enable_prefix_caching"] and not _at_least_0_18(release.ascend):
        raise BadSettings(
            f"prefix caching scores wrong in vllm-ascend {release.ascend} "
            "(fixed in 0.18.0, vllm-ascend#7452); leave it off or upgrade"
        )
    if known(release.ascend) != release.number:
        raise BadSettings(
            f"vllm-ascend {release.ascend} does not belong to vLLM {release.text}; "
            "install the pair with the same numbers"
        )


def _at_least_0_18(version: str) -> bool:
    """Release candidates of 0.18.0 lack the fix."""
    if version.startswith("0.18.0rc"):
        return False
    numbers = version.split(".")
    return (int(numbers[0]), int(numbers[1])) >= (0, 18)


def _has_int8_cache(checkpoint: Checkpoint) -> bool:
    """What Ascend's quantizer wrote beside the weights."""
    file = checkpoint.path / "quant_model_description.json"
    if not file.is_file():
        return False
    description: dict[str, Any] = orjson.loads(file.read_bytes())
    return description.get("kv_quant_type") == "C8"
