"""Prints configs/reference.toml: every setting with its description, values and default.

`make configs` writes the file.
"""

from __future__ import annotations

import textwrap
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from rankd.config.settings import Settings
from rankd.config.show import shown
from rankd.config.sources import sources

HEAD = """\
# Every setting with its default, written by `make configs` from src/rankd/config/settings.py.
# Copy what you need to a file of your own; other settings keep their defaults.
#   rankd serve --config FILE
#
# Each setting is also a flag and a variable: max_tokens is --max-tokens and RANKD_MAX_TOKENS. Only
# api_keys is --api-key, once per key. Flags override variables, variables override files, and a
# later file overrides an earlier one. An unknown name is an error. `rankd serve --print-config`
# prints all settings with their sources.
#
# Lines with "# " are text; lines with "#" and no blank are examples.
"""

# Contents of the tables, which are empty by default.
EXAMPLES = {
    "instructions": '#code-question = "Given a question, retrieve code that answers it"',
    "calibration": """\
#[calibration.default]    # Or the name of a preset. `rankd calibrate` writes it.
#threshold = 0.4
#platt = { slope = 1.5, intercept = -0.5 }""",
    "aliases": '#"house/code" = { preset = "code-question", truncation = "chunk" }',
    "key_presets": '#acme = "code-question"    # The name of a key in api_keys_file.',
    "vllm": """\
#gpu_memory_utilization = 0.85
#tensor_parallel_size = 1    # Devices that share one model.
#data_parallel_size = 1      # Copies of the model, each on its own devices.""",
}


def reference() -> str:
    """The text of the file."""
    blocks, table = [HEAD], ""
    for line in shown(Settings(), sources({}, {})).splitlines():
        value = line.removesuffix("  # default")
        if value.startswith("["):
            table = value.strip("[]")
            name = "vllm_args" if table == "vllm" else table
            blocks.append(f"{_comment(Settings.model_fields[name])}\n{value}\n{EXAMPLES[table]}\n")
        elif value:
            assert not table, f"{value} is in a table"
            name = value.removeprefix("# ").split(" =")[0]
            blocks.append(f"{_comment(Settings.model_fields[name])}\n{value}\n")
    return "\n".join(blocks)


def _comment(field: FieldInfo) -> str:
    text = " ".join(filter(None, [field.description, _values(field)]))
    return textwrap.fill(text, 98, initial_indent="# ", subsequent_indent="# ")


def _values(field: FieldInfo) -> str:
    """The allowed values of a setting."""
    if choices := _choices(field.annotation):
        return f"One of {', '.join(choices)}."
    bounds = {
        name: next((getattr(limit, name) for limit in field.metadata if hasattr(limit, name)), None)
        for name in ("ge", "gt", "le")
    }
    if bounds["ge"] == 0:
        bounds["ge"] = None  # Most numbers cannot be negative.
    words = {"ge": "at least", "gt": "above", "le": "at most"}
    limits = [f"{words[name]} {bound:,}" for name, bound in bounds.items() if bound is not None]
    return f"{', '.join(limits).capitalize()}." if limits else ""


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    if get_origin(annotation) is UnionType:
        return [choice for part in get_args(annotation) for choice in _choices(part)]
    return []


if __name__ == "__main__":
    print(reference(), end="")
