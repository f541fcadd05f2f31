"""Reads judged pairs from JSON Lines, grouped by instruction.

{"query", "document", "relevant": true, false or a grade, "instruction"? or "preset"?}
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rankd.config.settings import Settings
from rankd.config.suggest import nearest
from rankd.errors import BadSettings
from rankd.evaluation.jsonl import excerpt, objects, refuse, text_field

DEFAULT = "default"
"""The preset name of the server's own instruction."""

_FIELDS = ("query", "document", "relevant", "instruction", "preset")


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """A query and a document.

    Attributes:
        relevant: true, or a grade of at least `--relevant-from`.
    """

    query: str
    document: str
    relevant: bool


@dataclass(frozen=True)
class JudgedGroup:
    """All pairs of one instruction.

    Attributes:
        name: the preset's name; a generated one if no preset has this instruction.
        instruction: its text; None is the server's own.
        is_new: no preset has this instruction.
    """

    name: str
    instruction: str | None
    is_new: bool
    pairs: list[JudgedPair]

    @property
    def relevant(self) -> list[bool]:
        return [pair.relevant for pair in self.pairs]


def read_pairs(
    file: str, settings: Settings, *, own: str | None, min_grade: float
) -> list[JudgedGroup]:
    """Read the pairs, grouped by instruction in the order of their first lines.

    Args:
        file: a path, or `-` for standard input.
        own: the text of the server's own instruction; None if it is unknown.
        min_grade: the lowest grade that counts as relevant.

    Raises:
        BadSettings: a line is not a judged pair (names the line), or all pairs of an
            instruction are of one class (names the instruction).
    """
    presets = settings.instructions
    groups: dict[str | None, list[JudgedPair]] = {}
    for location, row in objects(file):
        instruction = _instruction(location, row, presets)
        pair = JudgedPair(
            text_field(location, row, "query"),
            _document(location, row),
            _relevant(location, row, min_grade),
        )
        groups.setdefault(None if instruction == own else instruction, []).append(pair)
    if not groups:
        raise BadSettings(f"{'standard input' if file == '-' else file} holds no judged pairs")
    named = _named(groups, presets)
    for group in named:
        _refuse_one_class(file, group)
    return named


def _instruction(location: str, row: dict[str, Any], presets: Mapping[str, str]) -> str | None:
    for name in row:
        # Other fields may be notes; a misspelt one is an error.
        if name not in _FIELDS and (hint := nearest(name, _FIELDS)):
            refuse(location, f"unknown field {name!r}{hint}")
    if row.get("preset") is None:
        return None if row.get("instruction") is None else text_field(location, row, "instruction")
    if row.get("instruction") is not None:
        refuse(location, "has both an instruction and a preset")
    preset = text_field(location, row, "preset")
    if preset == DEFAULT:
        return None
    if preset not in presets:
        hint = nearest(preset, presets) or "; define presets in [instructions] of --config"
        refuse(location, f"unknown preset {preset!r}{hint}")
    return presets[preset]


def _document(location: str, row: dict[str, Any]) -> str:
    """A string, or an object with a `text`, as in `rankd rerank`."""
    match row.get("document"):
        case {"text": str(inside)}:
            return inside
    return text_field(location, row, "document")


def _relevant(location: str, row: dict[str, Any], min_grade: float) -> bool:
    value = row.get("relevant")
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and math.isfinite(value):
        return value >= min_grade
    if "relevant" not in row:
        refuse(location, "has no 'relevant'")
    return refuse(location, f"'relevant' must be true, false or a grade, not {excerpt(value)}")


def _named(
    groups: Mapping[str | None, list[JudgedPair]], presets: Mapping[str, str]
) -> list[JudgedGroup]:
    names = {instruction: name for name, instruction in presets.items()}
    generated = (f"instruction-{number}" for number in itertools.count(1))
    unused = (name for name in generated if name not in presets)
    named = []
    for instruction, pairs in groups.items():
        if instruction is None:
            named.append(JudgedGroup(DEFAULT, None, False, pairs))
        elif instruction in names:
            named.append(JudgedGroup(names[instruction], instruction, False, pairs))
        else:
            named.append(JudgedGroup(next(unused), instruction, True, pairs))
    return named


def _refuse_one_class(file: str, group: JudgedGroup) -> None:
    if len(set(group.relevant)) < 2:
        judgment = "relevant" if group.relevant[0] else "not relevant"
        count = len(group.pairs)
        raise BadSettings(
            f"{file}: instruction {group.name!r} has {count} judged "
            f"{'pair, and it is' if count == 1 else 'pairs, and all are'} {judgment}; "
            "a threshold needs pairs of both kinds"
        )
