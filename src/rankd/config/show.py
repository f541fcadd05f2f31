"""Prints settings as a TOML file (`--print-config`), and groups them by topic for help and docs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rankd.config.redaction import redacted
from rankd.config.settings import TABLES, Settings

# Values by setting, by source; lowest precedence first. `config.sources.sources` makes it.
Sources = dict[str, dict[str, Any]]


def shown(settings: Settings, given: Sources) -> str:
    """Settings as a TOML file for --config, with secrets redacted and the source of each.

    Args:
        given: the `sources` that the settings were loaded from.
    """
    lines = []
    for name, value in settings.model_dump(mode="json", exclude={"vllm_args", *TABLES}).items():
        origin = next((source for source in reversed(given) if name in given[source]), "default")
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


def _shown_table(name: str, table: Mapping[str, Any], given: Sources) -> list[str]:
    """A table as a section of the file; these tables hold no secrets."""
    origins = [source for source in given if name in given[source]]
    rows = [f"{json.dumps(key)} = {_toml(value)}" for key, value in table.items()]
    return [f"[{name}]  # {', '.join(origins) or 'default'}", *rows]


def _toml(value: Any) -> str:
    match value:
        case list():
            return f"[{', '.join(_toml(item) for item in value if item is not None)}]"
        case dict():
            pairs = (f"{json.dumps(k)} = {_toml(v)}" for k, v in value.items() if v is not None)
            return f"{{ {', '.join(pairs)} }}"
    # A JSON string is a TOML string, except that TOML wants U+007F escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# What most people need, in the order of `rankd serve --help`; --help-all lists every setting.
COMMON = (
    *("model", "served_model_name", "engine", "device", "dtype"),
    *("host", "port", "api_keys", "api_keys_file"),
    *("max_documents", "max_tokens", "truncation", "instruction", "cache_mb", "log_level"),
)

# Settings by topic, as help and documentation list them.
_TOPICS: Mapping[str, tuple[str, ...]] = {
    "Model": ("model", "revision", "served_model_name", "strict_model", "self_check"),
    "Address and HTTPS": (
        *("host", "port", "root_path", "allowed_hosts", "cors_origins", "ui"),
        *("ssl_certfile", "ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs"),
    ),
    "Keys and their limits": (
        *("api_keys", "api_keys_file", "key_requests_per_minute", "key_tokens_per_minute"),
        *("key_concurrency", "limits_redis"),
    ),
    "Engine": (
        *("engine", "device", "dtype", "threads", "batch_tokens", "deterministic"),
        *("engine_restarts", "engine_wait_seconds", "engine_stuck_seconds", "vllm_args"),
        *("ray_address", "ray_app"),
    ),
    "Documents and instructions": (
        *("max_tokens", "truncation", "instruction", "instructions", "client_prompts"),
        *("calibration", "aliases", "key_presets", "shadow", "ab"),
    ),
    "Cache": ("cache_mb", "cache_redis"),
    "Limits": (
        *("max_documents", "max_request_tokens"),
        *("max_body_bytes", "max_response_bytes"),
        *("max_waiting_requests", "max_waiting_tokens"),
        *("read_timeout_seconds", "timeout_ms"),
    ),
    "Batch jobs": ("batch_dir", "batch_file_bytes", "batch_days"),
    "Logs, traces and shutdown": (
        *("log_level", "log_format", "log_texts", "access_log", "otel"),
        *("drain_seconds", "drain_delay_seconds"),
    ),
}


def topics() -> dict[str, list[str]]:
    """Names of all settings by topic; a setting without a topic is under "More"."""
    by_topic = {topic: list(names) for topic, names in _TOPICS.items()}
    listed = {name for names in by_topic.values() for name in names}
    if more := [name for name in Settings.model_fields if name not in listed]:
        by_topic["More"] = more
    return by_topic
