"""docs/configuration.md, from the settings themselves: `python tools/configuration.py` writes it.

A test fails while the page and the settings differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from rankd.config.settings import Settings
from rankd.config.sources import CONFIG_VARIABLE, ENV_PREFIX

PAGE = Path(__file__).resolve().parent.parent / "docs/configuration.md"

HEAD = f"""\
<!-- Written by tools/configuration.py from src/rankd/config/settings.py; change that. -->

# Settings

Every setting has three spellings, a flag, a variable and a key of a TOML file. The flag beats the
variable, the variable the file, and a later file an earlier one; the tables of several files are
added up. Files are named by `--config FILE`, which may be given more than once, or by
`{CONFIG_VARIABLE}`, with colons between them. A name that nobody knows ends the start, with the
nearest name; so does a value that cannot be.

```bash
rankd serve --config configs/builtin-cpu.toml --max-tokens 4096 --print-config
```

`--print-config` prints what holds, as such a file, and where each value comes from, without
secrets, and ends. `rankd check`, `rerank`, `eval`, `calibrate` and `probe` take the same settings.
[configs/](../configs) has commented files to start from. Variables that Kubernetes makes for a
Service named "rankd" (`RANKD_SERVICE_HOST`, `RANKD_PORT=tcp://…`) are no settings and do no harm.

A heading below is the key in the file. A switch is `true` or `false` there and as a variable.
Tables, and the list of keys in its variable, are JSON where they are no part of a file.
"""

# Each begins at a setting and goes on to the next; a new setting belongs where it stands.
SECTIONS = {
    "model": "The model",
    "engine": "The engine",
    "host": "Address, limits, keys",
    "truncation": "Long documents and instructions",
    "cache_mb": "Scores that are kept",
    "self_check": "The check at start",
    "batch_dir": "Batch jobs",
    "timeout_ms": "Time, the end, the log",
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
    "_overlap": "tokens",
}

LIMITS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}"}


def page() -> str:
    """The whole page, as it should be."""
    parts = [HEAD]
    for name, field in Settings.model_fields.items():
        if name in SECTIONS:
            parts.append(f"## {SECTIONS[name]}\n")
        parts.append("\n".join(_entry(name, field)))
    return "\n".join(parts)


def flag(name: str) -> str:
    """The flag of a setting, as `rankd serve` takes it."""
    return "--api-key" if name == "api_keys" else f"--{name.replace('_', '-')}"


def _entry(name: str, field: FieldInfo) -> Iterator[str]:
    places = [f"`{flag(name)}`", f"`{ENV_PREFIX}{name.upper()}`"]
    if field.annotation is bool:
        places.insert(1, f"`--no-{flag(name)[2:]}`")
    if get_origin(field.annotation) is dict:
        places.append("`[vllm]` in the file" if name == "vllm_args" else f"`[{name}]` in the file")
    yield f"### {name}\n"
    yield " · ".join([*places, f"default {_default(name, field.default)}", _values(name, field)])
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
        form.format(f"{getattr(one, key):,}")
        for one in field.metadata
        for key, form in LIMITS.items()
        if getattr(one, key, None) is not None
    ]
    if kind in (int, float):
        unit = next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
        words = [f"{'whole ' * (kind is int)}number" + f" ({unit})" * bool(unit), *limits]
        return ", ".join(words)
    if kind is bool:
        return "switch"
    if get_origin(kind) is dict:
        return "table"
    if get_origin(kind) is tuple:
        return "list: repeat the flag" if name == "api_keys" else "list, by commas"
    return "path" if Path in get_args(kind) else "text"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
