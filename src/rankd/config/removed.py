"""Settings that no longer exist, and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping

REMOVED: Mapping[str, str] = {
    "tensor_parallel": "set tensor_parallel_size in [vllm] or --vllm-args",
    "data_parallel": "set data_parallel_size in [vllm] or --vllm-args",
    "gpu_memory_utilization": "set gpu_memory_utilization in [vllm] or --vllm-args",
    "quantization": "set quantization in [vllm] or --vllm-args",
    "max_waiting_bytes": "it is 16 times max_body_bytes; set that",
    "max_connections": "it is 900, and at least max_waiting_requests + 100; set that",
    "truncation_side": "set truncation_side in the request or in an alias",
    "chunk_tokens": "it is 512; set max_tokens_per_doc in the request or in an alias",
    "chunk_overlap": "it is 64; set overlap_tokens in the request or in an alias",
    "max_instruction_tokens": "it is 512; shorten the instruction",
    "cache_ttl_seconds": "it is one hour; set cache_mb, or the eviction policy of Redis",
    "batch_lines": "it is 50,000, as in OpenAI's Batch API; split the job",
    "batch_stored_bytes": "it is 50 times batch_file_bytes; set that",
    "batch_concurrency": "it is 32; batch jobs yield to interactive requests",
}


def replacement(name: str) -> str:
    """` (removed): ...`, or an empty string for a name that never was a setting."""
    return f" (removed): {REMOVED[name]}" if name in REMOVED else ""
