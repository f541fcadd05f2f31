"""Structured documents as text: YAML blocks, as Cohere documents them for objects."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any


def yaml_lines(value: dict[str, Any], fields: Iterable[str]) -> str:
    """The fields in the given order, as `yaml.dump(sort_keys=False)` writes them.

    Strings are not quoted or wrapped, where YAML's syntax would ask for it. The lines of a
    string are indented, so that none of them reads like a field.
    """
    chosen = {field: value[field] for field in fields}
    return _block(chosen, as_json=_is_large(chosen))


def yaml_value(value: Any) -> str:
    """One value, without a name."""
    return _json(value) if _is_large([value]) else _block(value, as_json=False)


# Values, lines and ten thousands of characters inside of values, each counted once for each
# level that it is indented by: every level copies what it holds, and adds two characters to every
# line. Larger values are written as JSON, which is YAML, too.
_MAX_INNER_VALUES = 1_000


def _is_large(value: dict[str, Any] | list[Any]) -> bool:
    """Whether its values hold too much to be written as blocks."""
    count = depth = 0
    level: list[Any] = [value]
    while level := [
        item for node in level for item in _items(node) if isinstance(item, dict | list)
    ]:
        depth += 1
        texts = [text for node in level for text in (*node, *_items(node)) if isinstance(text, str)]
        lines = sum([text.count("\n") + text.count("\r") for text in texts])
        count += depth * (sum(map(len, level)) + lines + sum(map(len, texts)) // 10_000)
        if count > _MAX_INNER_VALUES:
            return True
    return False


def _items(node: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return node.values() if isinstance(node, dict) else node


def _block(value: Any, *, as_json: bool) -> str:
    """A value as a block; with `as_json` the lists and objects in it are JSON."""
    match value:
        case dict() if value:
            return "\n".join(_field(name, item, as_json=as_json) for name, item in value.items())
        case list() if value:
            return "\n".join(_item(item, as_json=as_json) for item in value)
        case str():
            # In whole: splitting a text of millions of lines would take long.
            text = value.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
            return f"|-\n{_indented(text)}" if "\n" in text else text
    return _json(value)


def _field(name: str, value: Any, *, as_json: bool) -> str:
    """`name: value`; a list or an object below its name, an object's fields indented."""
    name = name if len(name.splitlines()) == 1 else _json(name)
    match value:
        case dict() | list() if value and as_json:
            return f"{name}: {_json(value)}"
        case dict() if value:
            return f"{name}:\n{_indented(_block(value, as_json=as_json))}"
        case list() if value:
            return f"{name}:\n{_block(value, as_json=as_json)}"
    return f"{name}: {_block(value, as_json=as_json)}"


def _item(value: Any, *, as_json: bool) -> str:
    """`- value`, with all its lines behind the dash."""
    if as_json and isinstance(value, dict | list):
        return f"- {_json(value)}"
    return f"- {_indented(_block(value, as_json=as_json)).removeprefix('  ')}"


def _indented(block: str) -> str:
    return "  " + block.replace("\n", "\n  ").replace("  \n", "\n")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
