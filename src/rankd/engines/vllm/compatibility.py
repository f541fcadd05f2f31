"""Refuse combinations of settings, model and vLLM that are known to fail or to score wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from rankd.engines.vllm.profiles import DeviceProfile
from rankd.engines.vllm.versions import Release, supported_number
from rankd.errors import BadModel, BadSettings
from rankd.models.adapter import shortened
from rankd.models.checkpoint import Checkpoint
from rankd.models.rope import read_rope
from rankd.models.weight_checks import LM_HEAD, quantized_tensors
from rankd.types import AnswerTokenIds

# With more ranks, the vocabulary is split before the row of "yes".
_TENSOR_PARALLEL_SIZES = (1, 2, 4, 8)

# Parameters of YaRN that vLLM does not read (0.33: layers/rotary_embedding/__init__.py).
_UNREAD_YARN = ("attention_factor", "mscale", "mscale_all_dim")


def refuse_known_bad(
    checkpoint: Checkpoint,
    answers: AnswerTokenIds,
    profile: DeviceProfile,
    release: Release,
    args: Mapping[str, Any],
) -> None:
    """Check vLLM's arguments before it is started.

    Raises:
        BadSettings, BadModel: the combination cannot give right scores; says why.
    """
    _refuse_sizes(args)
    _refuse_split_answers(checkpoint, answers, args["tensor_parallel_size"])
    _refuse_quantized_lm_head(checkpoint, args)
    if difference := _read_otherwise(checkpoint, release):
        raise BadModel(f"{checkpoint.name} {difference}; use --engine native")
    if not release.chunked_prefill_is_right and args["enable_chunked_prefill"]:
        raise BadSettings(
            f"enable_chunked_prefill scores long pairs wrong in vLLM {release.text} "
            "(fixed in 0.26, vllm#48831); leave it off"
        )
    if profile.device == "npu":
        _refuse_on_npu(checkpoint, release, args)


def _refuse_sizes(args: Mapping[str, Any]) -> None:
    ranks = args["tensor_parallel_size"]
    if ranks not in _TENSOR_PARALLEL_SIZES:
        raise BadSettings(f"tensor_parallel_size = {ranks}: must be 1, 2, 4 or 8")
    step_tokens, max_tokens = args["max_num_batched_tokens"], args["max_model_len"]
    if step_tokens < max_tokens:
        raise BadSettings(
            f"max_num_batched_tokens = {step_tokens}: a pair of max_tokens = {max_tokens} must "
            "fit in one step, or scores of long pairs may be read before they are computed; "
            f"set it to at least {max_tokens}"
        )


def _refuse_split_answers(checkpoint: Checkpoint, answers: AnswerTokenIds, ranks: int) -> None:
    """vLLM reads the answers' rows from the first rank's part of the vocabulary."""
    rows = int(checkpoint.config.get("vocab_size", 151_936)) // ranks
    last = max(answers.yes, answers.no or 0)
    if ranks > 1 and last >= rows and not checkpoint.is_classifier:
        raise BadSettings(
            f"tensor_parallel_size = {ranks}: the first rank has rows for {rows:,} tokens, but the "
            f"score needs token {last:,}; set it to 1, or use --engine native"
        )


def _refuse_quantized_lm_head(checkpoint: Checkpoint, args: Mapping[str, Any]) -> None:
    config = checkpoint.config.get("quantization_config") or {}
    method = args.get("quantization") or config.get("quant_method")
    if method == "bitsandbytes":
        raise BadSettings(
            "bitsandbytes quantizes the layer that the score is read from (vllm#33970); "
            "use AWQ, GPTQ or FP8"
        )
    quantized = quantized_tensors(checkpoint.tensors)
    head = _head(checkpoint)
    stated = head != "score" and config.get("lm_head")
    if stated or any(name.startswith(f"{head}.") for name in quantized):
        raise BadModel(
            f"{checkpoint.name} has a quantized {'lm_head' if stated else head}, so no score can "
            "be read from it; quantize the model again without it"
        )
    if quantized and not args.get("quantization") and not _states_quantization(checkpoint):
        raise BadModel(
            f"{checkpoint.name} has quantized weights ({shortened(quantized)}) and nothing that "
            "tells vLLM how to read them; quantize the original model again with a tool that "
            "writes quantization_config into config.json, or serve the original"
        )


def _head(checkpoint: Checkpoint) -> str:
    """The module that the score is read from."""
    if checkpoint.is_classifier:
        return "score"
    tied = checkpoint.config.get("tie_word_embeddings") and LM_HEAD not in checkpoint.tensors
    return "model.embed_tokens" if tied else "lm_head"


def _states_quantization(checkpoint: Checkpoint) -> bool:
    in_config = ("quantization_config", "compression_config")
    # Of NVIDIA's ModelOpt and of Ascend's msModelSlim.
    files = ("hf_quant_config.json", "quant_model_description.json")
    return any(checkpoint.config.get(name) for name in in_config) or any(
        (checkpoint.path / name).is_file() for name in files
    )


def _read_otherwise(checkpoint: Checkpoint, release: Release) -> str | None:
    """What vLLM computes otherwise than transformers, or not at all; None if nothing."""
    if checkpoint.adapter is not None:
        return "has a LoRA adapter, which vLLM would leave out"
    if checkpoint.yes_label is not None:
        return "is a classifier of two labels, from which vLLM gives no single score"
    # Before, vLLM read the embedding where config.json ties it (0.32: config/model.py).
    if release.number < (0, 32) and checkpoint.has_own_head:
        return (
            f"has an LM head of its own although config.json ties it, which vLLM {release.text} "
            "leaves out (0.32 and later read it)"
        )
    rope = read_rope(checkpoint.config)
    if rope.type == "dynamic":
        return "has dynamic rotary scaling, which vLLM applies to short prompts, too"
    unread = [name for name in _UNREAD_YARN if rope.options.get(name) is not None]
    if rope.type == "yarn" and (unread or rope.options["factor"] is None):
        return f"has YaRN with {unread[0] if unread else 'a factor of null'}, which vLLM leaves out"
    return None


def _refuse_on_npu(checkpoint: Checkpoint, release: Release, args: Mapping[str, Any]) -> None:
    if str(args.get("kv_cache_dtype", "auto")).startswith("int8") or _has_int8_cache(checkpoint):
        raise BadSettings(
            "with an int8 KV cache on NPU, rerankers run on a kernel that is not causal and "
            "scores are wrong; use kv_cache_dtype auto and a checkpoint without C8"
        )
    if release.ascend is None:
        return
    if args["enable_prefix_caching"] and not _at_least_0_18(release.ascend):
        raise BadSettings(
            f"prefix caching scores wrong in vllm-ascend {release.ascend} "
            "(fixed in 0.18.0, vllm-ascend#7452); turn it off or upgrade"
        )
    if supported_number(release.ascend) != release.number:
        raise BadSettings(
            f"vllm-ascend {release.ascend} does not belong to vLLM {release.text}; "
            "install both with the same first two numbers"
        )


def _at_least_0_18(version: str) -> bool:
    """False for release candidates of 0.18.0, which lack the fix."""
    if version.startswith("0.18.0rc"):
        return False
    numbers = version.split(".")
    return (int(numbers[0]), int(numbers[1])) >= (0, 18)


def _has_int8_cache(checkpoint: Checkpoint) -> bool:
    """Whether Ascend's quantizer wrote that the KV cache is int8 ("C8")."""
    file = checkpoint.path / "quant_model_description.json"
    if not file.is_file():
        return False
    description: dict[str, Any] = orjson.loads(file.read_bytes())
    return description.get("kv_quant_type") == "C8"
