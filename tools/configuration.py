"""Writes docs/configuration.md from the settings: `python tools/configuration.py`.

A test fails if the page and the settings differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from rankd.config.settings import LISTS, Settings
from rankd.config.sources import CONFIG_VARIABLE, ENV_PREFIX

PAGE = Path(__file__).resolve().parent.parent / "docs/configuration.md"

HEAD = f"""\
<!-- Written by tools/configuration.py from src/rankd/config/settings.py: edit those. -->

# Settings

Every setting is a flag, an environment variable and a key of a TOML file. Flags override
variables, variables override files, and a later file overrides an earlier one. The tables of
several files are merged, and `vllm_args` is merged from every source. Name files with
`--config FILE`, which may be repeated, or with `{CONFIG_VARIABLE}`, separated by colons. An unknown
name or an invalid value ends the start with exit status 2; the error names the nearest setting, or
what to do instead of a removed one.

`rankd serve --help` lists the fifteen settings that people need most, `--help-all` all of them.

```bash
rankd serve --config configs/builtin-cpu.toml --max-tokens 4096 --print-config
```

`--print-config` prints all settings as a TOML file, with the source of each value and without
secrets, and exits. `rankd check`, `rerank`, `eval`, `calibrate` and `probe` accept the same
settings. [configs/](../configs) has commented files to start from. Variables that Kubernetes sets
for a Service named "rankd" (`RANKD_SERVICE_HOST`, `RANKD_PORT=tcp://…`) are ignored.

Each heading below is the key in the file. Switches are `true` or `false` in files and variables.
Tables, and the list `api_keys`, are JSON in flags and variables.

Limits that are not settings: 16 times `max_body_bytes` for all request bodies together; 900
connections, or `max_waiting_requests` + 100 if that is more; 512 tokens per instruction; chunks of
512 tokens that share 64, unless the request says otherwise; cached scores are kept for one hour;
50,000 lines per batch job, 32 of all jobs at a time, and 50 times `batch_file_bytes` for all files.
"""

# Headings, by the first setting of each section, in the order of the fields.
SECTIONS = {
    "model": "The model",
    "engine": "The engine",
    "host": "Address, limits, keys",
    "truncation": "Long documents and instructions",
    "cache_mb": "Score cache",
    "self_check": "Self-check and web page",
    "batch_dir": "Batch jobs",
    "timeout_ms": "Timeout, shutdown, logs",
}

UNITS = {
    "_seconds": "seconds",
    "_ms": "milliseconds",
    "_bytes": "bytes",
    "_mb": "MiB",
    "_days": "days",
    "tokens": "tokens",
    "_requests_per_minute": "requests a minute",
    "_tokens_per_minute": "tokens a minute",
    "_requests": "requests",
    "_documents": "documents",
}

LIMITS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}


def page() -> str:
    """The text of the page."""
    parts = [HEAD]
    for name, field in Settings.model_fields.items():
        if name in SECTIONS:
            parts.append(f"## {SECTIONS[name]}\n")
        parts.append("\n".join(_entry(name, field)))
    return "\n".join(parts)


def flag(name: str) -> str:
    """The flag of a setting in `rankd serve`."""
    return "--api-key" if name == "api_keys" else f"--{name.replace('_', '-')}"


def _entry(name: str, field: FieldInfo) -> Iterator[str]:
    spellings = [f"`{flag(name)}`", f"`{ENV_PREFIX}{name.upper()}`"]
    if field.annotation is bool:
        spellings.insert(1, f"`--no-{flag(name)[2:]}`")
    if get_origin(field.annotation) is dict:
        table = "vllm" if name == "vllm_args" else name
        spellings.append(f"`[{table}]` in the file")
    if name in LISTS:
        spellings.append(f"`[[{name}]]` in the file")
    yield f"### {name}\n"
    yield " · ".join([*spellings, f"default {_default(name, field.default)}", _values(name, field)])
    yield f"\n{field.description}\n"


def _default(name: str, value: Any) -> str:
    if value in (None, (), {}):
        return "none"
    if name.endswith("_bytes"):
        return f"`{value}` ({value // 2**20:,} MiB)"
    return f"`{json.dumps(value) if isinstance(value, bool) else value}`"


def _values(name: str, field: FieldInfo) -> str:
    kind = field.annotation
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    limits = [
        form.format(f"{getattr(constraint, key):,}")
        for constraint in field.metadata
        for key, form in LIMITS.items()
        if getattr(constraint, key, None) is not None
    ]
    if kind in (int, float):
        unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
        words = [f"{'whole ' * (kind is int)}number" + f" ({unit})" * bool(unit), *limits]
        return ", ".join(words)
    if kind is bool:
        return "switch"
    if get_origin(kind) is dict:
        return "table"
    if name in LISTS:
        return "array of tables"
    if get_origin(kind) is tuple:
        return "list: repeat the flag" if name == "api_keys" else "list, comma-separated"
    return "path" if Path in get_args(kind) else "text"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
