"""Renders a checkpoint's chat template with known texts, to find the fixed text around them.

A pair is rendered as sentence-transformers does: messages with the roles `query` and `document`,
and the instruction as the message of role `system` before them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import jinja2
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from rankd.errors import BadModel
from rankd.models.statement import ChatTemplate
from rankd.prompts.probes import TEXTS
from rankd.prompts.template import DOCUMENT, INSTRUCTION, QUERY, pieces

# A template that has one of these reads content as a list of parts.
_PARTS_SIGNS = ("content[0]", ".type", "'type'", '"type"', "message.content[")

# The names of both roles, as strings in the template.
_ROLES = tuple(re.compile(f"[\"']{role}[\"']") for role in ("query", "document"))

# Texts that a template may treat otherwise than others, beside those of `probes`.
_UNUSUAL = ("a</think>b", "<|im_end|>", "{{ x }}", "{% if %}", "&<>'", "ßİ", "None", "word " * 2000)

Render = Callable[..., str]


class RenderedPair:
    """What a chat template makes of a pair.

    Attributes:
        bare: the text without an instruction, with slots; None if it cannot be rendered.
        instructed: with one; None if the template has no place for it.
        default: the instruction that `bare` holds, as `instructed` shows; None if there is none.
        strips: slots whose text loses white space at both ends.
    """

    def __init__(self, stated: ChatTemplate, render: Render) -> None:
        self.bare = _with_each_once(stated, render)
        self.instructed = _with_each_once(stated, render, INSTRUCTION)
        self.default = _default(self.bare, self.instructed)
        self.strips = frozenset(
            slot for slot in self.slots if _strips(render, _texts(self.text), slot)
        )
        for text in filter(None, (self.instructed, self.bare)):
            _refuse_changes(stated, render, text, self.strips)

    @property
    def text(self) -> str:
        """The text with the most slots."""
        text = self.instructed or self.bare
        assert text is not None
        return text

    @property
    def slots(self) -> tuple[str, ...]:
        return tuple(slot for slot in (INSTRUCTION, QUERY, DOCUMENT) if slot in self.text)


def rendered_pair(stated: ChatTemplate) -> RenderedPair | None:
    """The fixed text around the texts of a pair; None if the template is not for pairs.

    Raises:
        BadModel: the template renders pairs, but not as fixed text around query and document.
    """
    names_roles = all(role.search(stated.source) for role in _ROLES)
    if not (stated.for_pairs or names_roles):
        return None
    try:
        render = _renderer(stated)
    except jinja2.TemplateError as problem:
        if names_roles:
            raise BadModel(f"{stated.file} is no valid template: {problem}") from None
        return None
    texts = [_tried(render), _tried(render, INSTRUCTION)]
    if not any(text and QUERY in text and DOCUMENT in text for text in texts):
        return None
    return RenderedPair(stated, render)


def _tried(render: Render, *instruction: str) -> str | None:
    """The text with slots; None if the template raises."""
    try:
        return render(QUERY, DOCUMENT, *instruction)
    except Exception:  # A template can raise whatever its filters raise.
        return None


def _with_each_once(stated: ChatTemplate, render: Render, *instruction: str) -> str | None:
    text = _tried(render, *instruction)
    if text is None or any(slot not in text for slot in (QUERY, DOCUMENT, *instruction)):
        return None
    for slot in (QUERY, DOCUMENT, *instruction):
        if text.count(slot) > 1:
            name = slot.strip("\0")
            raise BadModel(f"{stated.file} repeats the {name}; rankd takes templates with one each")
    if any("\0" in part for part in set(pieces(text)) - {INSTRUCTION, QUERY, DOCUMENT}):
        raise BadModel(f"{stated.file} has a NUL in its text")
    return text


def _default(bare: str | None, instructed: str | None) -> str | None:
    if bare is None or instructed is None:
        return None
    start, end = instructed.split(INSTRUCTION)
    if not (bare.startswith(start) and bare.endswith(end)):
        return None
    default = bare[len(start) : len(bare) - len(end)]
    return default if default.strip() and "\0" not in default else None


def _strips(render: Render, texts: dict[str, str], slot: str) -> bool:
    """Whether the template removes white space around the text of a slot."""
    blanks = " \n x \t"
    return blanks not in (_rendered_or_none(render, texts | {slot: blanks}) or blanks)


def _texts(text: str) -> dict[str, str]:
    """The slots in a text, each filled with itself."""
    return {slot: slot for slot in (INSTRUCTION, QUERY, DOCUMENT) if slot in text}


def _refuse_changes(
    stated: ChatTemplate, render: Render, expected: str, strips: frozenset[str]
) -> None:
    """Refuse a template that does anything with a text but put it into fixed text.

    Args:
        expected: the whole text with slots.
    """
    texts = _texts(expected)
    for slot in texts:
        for text in (*TEXTS, *_UNUSUAL):
            if slot == INSTRUCTION and not text.strip():
                continue  # An instruction is never blank.
            kept = text.strip() if slot in strips else text
            if _rendered_or_none(render, texts | {slot: text}) != expected.replace(slot, kept):
                raise BadModel(
                    f"{stated.file} changes the {slot.strip(chr(0))} {text[:40]!r}; rankd takes "
                    "templates of fixed text around instruction, query and document"
                )


def _rendered_or_none(render: Render, texts: dict[str, str]) -> str | None:
    try:
        instruction = (texts[INSTRUCTION],) if INSTRUCTION in texts else ()
        return render(texts[QUERY], texts[DOCUMENT], *instruction)
    except Exception:  # A template can raise whatever its filters raise.
        return None


def _renderer(stated: ChatTemplate) -> Render:
    """A function of query, document and, if there is one, instruction.

    Raises:
        jinja2.TemplateError: the template is not valid.
    """
    template = _Sandbox().from_string(stated.source)
    structured = stated.structured
    if structured is None:
        structured = any(sign in stated.source for sign in _PARTS_SIGNS)

    nothing = {"tools": None, "documents": None, "add_generation_prompt": False}
    variables = nothing | dict(stated.variables)

    def render(query: str, document: str, *instruction: str) -> str:
        texts = [("system", text) for text in instruction]
        texts += [("query", query), ("document", document)]
        messages = [
            {"role": role, "content": [{"type": "text", "text": text}] if structured else text}
            for role, text in texts
        ]
        return template.render(**variables, messages=messages)

    return render


class _GenerationTag(Extension):
    """`{% generation %}`, which marks the assistant's text for training."""

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.tags = {"generation"}

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja as transformers sets it up, without what makes long texts or depends on the time."""

    intercepted_binops = frozenset({"*", "**"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
        )
        self.filters["tojson"] = _to_json
        self.globals["raise_exception"] = _raise
        self.globals["strftime_now"] = _refuse_time

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        raise SecurityError(f"a chat template must not use {operator}")


def _to_json(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _refuse_time(_form: str) -> str:
    raise SecurityError("a chat template must not depend on the time")
