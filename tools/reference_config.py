"""Prints configs/reference.toml: every setting, what it means, what it takes, its default.

make configs
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
# Every setting with its default, made from src/rankd/config/settings.py by `make configs`.
# Take what you need into a file of your own: what is not there keeps its default.
#   rankd serve --config FILE
#
# Each is also a flag and a variable: max_tokens is --max-tokens and RANKD_MAX_TOKENS (only api_keys
# is --api-key, once for each). A flag beats the variable, the variable beats the file, and a later
# file an earlier one. A name that nobody knows is an error. `rankd serve --print-config` prints
# what holds, and where it comes from.
#
# Behind "# " is text; where the blank is missing stands an example.
"""

# What the tables hold, which have no default.
EXAMPLES = {
    "instructions": '#code-question = "Given a question, retrieve code that answers it"',
    "calibration": """\
#[calibration.default]    # Or the name of a preset; `rankd calibrate` writes it.
#threshold = 0.4
#platt = { slope = 1.5, intercept = -0.5 }""",
    "aliases": '#"house/code" = { preset = "code-question", truncation = "chunk" }',
    "key_presets": '#acme = "code-question"    # The name of a key in api_keys_file.',
    "vllm": "#max_num_seqs = 256",
}


def reference() -> str:
    """The whole file."""
    blocks, table = [HEAD], ""
    for line in shown(Settings(), sources({}, {})).splitlines():
        value = line.removesuffix("  # default")
        if value.startswith("["):
            table = value.strip("[]")
            name = "vllm_args" if table == "vllm" else table
            blocks.append(f"{_comment(Settings.model_fields[name])}\n{value}\n{EXAMPLES[table]}\n")
        elif value:
            assert not table, f"{value} stands in a table"
            name = value.removeprefix("# ").split(" =")[0]
            blocks.append(f"{_comment(Settings.model_fields[name])}\n{value}\n")
    return "\n".join(blocks)


def _comment(field: FieldInfo) -> str:
    said = " ".join(filter(None, [field.description, _takes(field)]))
    return textwrap.fill(said, 98, initial_indent="# ", subsequent_indent="# ")


def _takes(field: FieldInfo) -> str:
    """What may stand there, where the description does not say it."""
    if choices := _choices(field.annotation):
        return f"One of {', '.join(choices)}."
    bounds = {
        name: next((getattr(one, name) for one in field.metadata if hasattr(one, name)), None)
        for name in ("ge", "gt", "le")
    }
    if bounds["ge"] == 0:
        bounds["ge"] = None  # That it is not negative goes without saying.
    words = {"ge": "at least", "gt": "above", "le": "at most"}
    said = [f"{words[name]} {bound:,}" for name, bound in bounds.items() if bound is not None]
    return f"{', '.join(said).capitalize()}." if said else ""


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    if get_origin(annotation) is UnionType:
        return [choice for part in get_args(annotation) for choice in _choices(part)]
    return []


if __name__ == "__main__":
    print(reference(), end="")
