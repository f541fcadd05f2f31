"""Judged pairs in JSON lines: is this document relevant to this query?

{"query", "document", "relevant": true, false or a grade, "instruction"? or "preset"?}
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rankd.config.settings import Settings
from rankd.config.suggest import nearest
from rankd.errors import BadSettings
from rankd.evaluation.jsonl import objects, refuse, short, text

DEFAULT = "default"
"""How the server's own instruction is called among the presets."""

_FIELDS = ("query", "document", "relevant", "instruction", "preset")


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """One judged pair.

    Attributes:
        relevant: its grade passes `--relevant-from`.
    """

    query: str
    document: str
    relevant: bool


@dataclass(frozen=True)
class JudgedGroup:
    """All pairs that were judged by one instruction.

    Attributes:
        name: the preset's; of an instruction without a name, one that was made up.
        instruction: its text; None is the server's own, whatever it says.
        is_new: no preset has it.
    """

    name: str
    instruction: str | None
    is_new: bool
    pairs: list[JudgedPair]

    @property
    def relevant(self) -> list[bool]:
        return [pair.relevant for pair in self.pairs]


def read_pairs(
    file: str, settings: Settings, *, own: str | None, least: float
) -> list[JudgedGroup]:
    """The file's pairs by instruction, in the order of their first lines.

    Args:
        own: the text of the server's own instruction; None when nobody here knows it.
        least: the grade that counts as relevant.

    Raises:
        BadSettings: names the line that is no judged pair, or the instruction whose pairs
            are all of one kind.
    """
    presets = settings.instructions
    groups: dict[str | None, list[JudgedPair]] = {}
    for place, row in objects(file):
        instruction = _instruction(place, row, presets)
        pair = JudgedPair(
            text(place, row, "query"), _document(place, row), _relevant(place, row, least)
        )
        groups.setdefault(None if instruction == own else instruction, []).append(pair)
    if not groups:
        raise BadSettings(f"{'standard input' if file == '-' else file} holds no judged pairs")
    found = _named(groups, presets)
    for group in found:
        _refuse_one_kind(file, group)
    return found


def _instruction(place: str, row: dict[str, Any], presets: Mapping[str, str]) -> str | None:
    for name in row:
        # Other fields are the caller's own notes; a slip of the pen is not.
        if name not in _FIELDS and (hint := nearest(name, _FIELDS)):
            refuse(place, f"unknown field {name!r}{hint}")
    if row.get("preset") is None:
        return None if row.get("instruction") is None else text(place, row, "instruction")
    if row.get("instruction") is not None:
        refuse(place, "has both an instruction and a preset")
    preset = text(place, row, "preset")
    if preset == DEFAULT:
        return None
    if preset not in presets:
        known = nearest(preset, presets) or "; presets stand in [instructions] of --config"
        refuse(place, f"unknown preset {preset!r}{known}")
    return presets[preset]


def _document(place: str, row: dict[str, Any]) -> str:
    """A text, or an object with one, as `rankd rerank` takes them."""
    match row.get("document"):
        case {"text": str(inside)}:
            return inside
    return text(place, row, "document")


def _relevant(place: str, row: dict[str, Any], least: float) -> bool:
    value = row.get("relevant")
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and math.isfinite(value):
        return value >= least
    told = f"must be true, false or a grade, not {short(value)}"
    return refuse(place, f"'relevant' {told}" if "relevant" in row else "has no 'relevant'")


def _named(
    groups: Mapping[str | None, list[JudgedPair]], presets: Mapping[str, str]
) -> list[JudgedGroup]:
    names = {instruction: name for name, instruction in presets.items()}
    free = (f"instruction-{number}" for number in range(1, len(groups) + len(presets) + 1))
    unused = (name for name in free if name not in presets)
    found = []
    for instruction, pairs in groups.items():
        if instruction is None:
            found.append(JudgedGroup(DEFAULT, None, False, pairs))
        elif instruction in names:
            found.append(JudgedGroup(names[instruction], instruction, False, pairs))
        else:
            found.append(JudgedGroup(next(unused), instruction, True, pairs))
    return found


def _refuse_one_kind(file: str, group: JudgedGroup) -> None:
    if len(set(group.relevant)) < 2:
        kind = "relevant" if group.relevant[0] else "not relevant"
        count = len(group.pairs)
        raise BadSettings(
            f"{file}: instruction {group.name!r} has {count} judged "
            f"{'pair, and it is' if count == 1 else 'pairs, and all are'} {kind}; "
            "a threshold lies between both kinds"
        )
