"""Check vllm-ascend's configuration for rankd's arguments, without an NPU (`make probe-ascend`).

vLLM and vllm-ascend build their configuration from the arguments, with torch_npu mocked. This
tests the configuration only; nothing is computed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from rankd.config.settings import Settings
from rankd.engines.vllm.args import engine_args, supported_args
from rankd.engines.vllm.compatibility import refuse_known_bad
from rankd.engines.vllm.profiles import profile_for
from rankd.engines.vllm.versions import installed
from rankd.models.checkpoint import Checkpoint
from rankd.types import AnswerTokenIds

ANSWERS = AnswerTokenIds(yes=9693, no=2152)

# Qwen3-Reranker-0.6B's config.json.
CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "intermediate_size": 3072,
    "vocab_size": 151_669,
    "max_position_embeddings": 40960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
}

EXPECTED = {
    "platform": "NPUPlatform",
    "worker": "vllm_ascend.worker.worker.NPUWorker",
    "architecture": "Qwen3ForSequenceClassification",
    "convert": "classify",
    "labels": 1,
    "method": "from_2_way_softmax",
    "dtype": "torch.bfloat16",
    "head": "torch.float32",
    "block size": 128,
    "prefix caching": False,
    "chunked prefill": False,
    "tokens in a step": 16384,
    "pairs in a step": 512,
    "async scheduling": False,
    "policy": "priority",
    "graphs": "PIECEWISE",
}


def built_config(folder: Path) -> dict[str, object]:
    """vLLM's configuration for the arguments of `rankd serve --engine vllm`; keys as `EXPECTED`."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.usage.usage_lib import UsageContext

    release, checkpoint = installed(), Checkpoint(folder, "probe", CONFIG)
    profile = profile_for("auto", release)
    args = engine_args(checkpoint, ANSWERS, Settings(), profile, release)
    refuse_known_bad(checkpoint, ANSWERS, profile, release, args)
    fields = {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    supported = supported_args(args, fields, operator_args=())
    config = AsyncEngineArgs(**supported).create_engine_config(UsageContext.OPENAI_API_SERVER)
    model, cache, scheduler = config.model_config, config.cache_config, config.scheduler_config
    return {
        "platform": type(current_platform).__name__,
        "worker": config.parallel_config.worker_cls,
        "architecture": model.architectures[0],
        "convert": model.convert_type,
        "labels": model.hf_config.num_labels,
        "method": model.hf_config.method,
        "dtype": str(model.dtype),
        "head": str(model.head_dtype),
        "block size": cache.block_size,
        "prefix caching": cache.enable_prefix_caching,
        "chunked prefill": scheduler.enable_chunked_prefill,
        "tokens in a step": scheduler.max_num_batched_tokens,
        "pairs in a step": scheduler.max_num_seqs,
        "async scheduling": scheduler.async_scheduling,
        "policy": scheduler.policy,
        "graphs": config.compilation_config.cudagraph_mode.name,
    }


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        built = built_config(Path(folder))
    wrong = [name for name, value in EXPECTED.items() if built[name] != value]
    for name, value in built.items():
        sys.stdout.write(f"{name:<18}{value}{'   WRONG' if name in wrong else ''}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
