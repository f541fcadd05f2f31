"""Prints settings as a TOML file (`--print-config`), and groups them by topic for help and docs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rankd.config.redaction import redacted
from rankd.config.settings import TABLES, Settings


def shown(settings: Settings, given: Mapping[str, Mapping[str, Any]]) -> str:
    """Settings as a file for --config, secrets blotted out, and where each comes from.

    Args:
        given: the `sources` they were loaded from.
    """
    lines = []
    for name, value in settings.model_dump(mode="json", exclude={"vllm_args", *TABLES}).items():
        origin = next((place for place in reversed(list(given)) if name in given[place]), "default")
        text = f"# {name} =" if value is None else f"{name} = {_toml(redacted(name, value))}"
        lines.append(f"{text}  # {origin}")
    for name, table in settings.model_dump(mode="json", include={*TABLES}).items():
        lines += ["", *_shown_table(name, table, given)]
    lines += ["", "[vllm]"]
    lines += [
        f"{json.dumps(name)} = {_toml(redacted(name, value))}"
        for name, value in settings.vllm_args.items()
        if value is not None
    ]
    return "\n".join(lines)


def _shown_table(
    name: str, table: Mapping[str, Any], given: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """A table as a section of the file; what stands in it has a name, and is no secret."""
    places = [place for place in given if name in given[place]]
    rows = [f"{json.dumps(key)} = {_toml(value)}" for key, value in table.items()]
    return [f"[{name}]  # {', '.join(places) or 'default'}", *rows]


def _toml(value: Any) -> str:
    match value:
        case list():
            return f"[{', '.join(_toml(item) for item in value if item is not None)}]"
        case dict():
            pairs = (f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items() if v is not None)
            return f"{{ {', '.join(pairs)} }}"
    # Strings of JSON are strings of TOML, but for a character that no setting has.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# Settings by what they are about, as help and documentation list them.
_TOPICS: Mapping[str, tuple[str, ...]] = {
    "Model": ("model", "revision", "served_model_name", "strict_model", "self_check"),
    "Address and HTTPS": (
        *("host", "port", "cors_origins", "ui"),
        *("ssl_certfile", "ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs"),
    ),
    "Keys and what each may ask for": (
        *("api_keys", "api_keys_file", "key_requests_per_minute", "key_tokens_per_minute"),
        *("key_concurrency", "limits_redis"),
    ),
    "Engine": (
        *("engine", "device", "dtype", "threads", "batch_tokens", "deterministic"),
        *("engine_restarts", "engine_wait_seconds", "engine_stuck_seconds"),
    ),
    "vLLM": (
        *("tensor_parallel", "data_parallel", "gpu_memory_utilization", "quantization"),
        "vllm_args",
    ),
    "Documents and instructions": (
        *("max_tokens", "truncation", "truncation_side", "chunk_tokens", "chunk_overlap"),
        *("instruction", "instructions", "max_instruction_tokens"),
        *("calibration", "aliases", "key_presets"),
    ),
    "Cache": ("cache_mb", "cache_ttl_seconds", "cache_redis"),
    "Limits": (
        *("max_documents", "max_request_tokens", "max_body_bytes"),
        *("max_waiting_requests", "max_waiting_tokens", "max_waiting_bytes"),
        *("max_connections", "read_timeout_seconds", "timeout_ms"),
    ),
    "Batch jobs": (
        *("batch_dir", "batch_file_bytes", "batch_lines", "batch_stored_bytes"),
        *("batch_days", "batch_concurrency"),
    ),
    "Log, traces and end": (
        *("log_level", "log_format", "log_texts", "access_log", "otel"),
        *("drain_seconds", "drain_delay_seconds"),
    ),
}


def topics() -> dict[str, list[str]]:
    """The names of all settings by topic; those that are in none come last."""
    found = {topic: list(names) for topic, names in _TOPICS.items()}
    known = {name for names in found.values() for name in names}
    if more := [name for name in Settings.model_fields if name not in known]:
        found["More"] = more
    return found
