"""Chat templates of checkpoints: fixed text around the texts, in the ids of the whole string."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from rankd.errors import BadModel, BadSettings, InvalidRequest
from rankd.models.checkpoint import Checkpoint
from rankd.prompts import PromptEncoder, open_encoder, qwen3
from rankd.types import RankRequest
from support import layouts
from support.checkpoints import NO, YES
from support.layouts import CAPITAL_YES, state
from support.prompts import CONTROL, INSTRUCTION, texts

TEMPLATES = {
    "turns": layouts.TURNS,
    "document first": layouts.DOCUMENT_FIRST,
    "plain": layouts.PLAIN,
    "parts": layouts.PARTS,
    "optional": layouts.OPTIONAL,
}
DOCUMENT = "First of all. Then more of it, and more.\nIn the end\n"


@pytest.fixture(scope="module")
def folders(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a tokenizer and the files of sentence-transformers, for each template."""
    made = {}
    for name, template in TEMPLATES.items():
        made[name] = tmp_path_factory.mktemp("stated")
        (made[name] / "tokenizer.json").symlink_to(qwen / "tokenizer.json")
        state(made[name], template=template, structured=name == "parts")
    return made


@cache
def opened(folder: Path, **more: Any) -> PromptEncoder:
    fields: dict[str, Any] = {
        "max_tokens": 8192,
        "instruction": INSTRUCTION,
        "max_instruction_tokens": 512,
        "prefer_stated": True,
    }
    checkpoint = Checkpoint(folder, "test", {"architectures": ["Qwen3ForCausalLM"]})
    return open_encoder(checkpoint, **fields | more)


@cache
def reference(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def prompt_ids(encoder: PromptEncoder, query: str, document: str) -> list[int]:
    [prompt] = encoder.encode_blocking(RankRequest(query, (document,))).prompts
    return [*prompt.prefix, *prompt.suffix]


def whole_ids(folder: Path, encoder: PromptEncoder, query: str, document: str) -> list[int]:
    text = filled(encoder, query, document)
    return reference(folder).encode(text, add_special_tokens=False).ids


def filled(encoder: PromptEncoder, query: str, document: str) -> str:
    texts = {"{instruction}": encoder.instruction, "{query}": query, "{document}": document}
    parts = re.split(r"(\{(?:instruction|query|document)\})", encoder.text)
    return "".join(texts.get(part) or part for part in parts if texts.get(part, part))


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(query=texts, document=texts)
def test_ids_are_those_of_the_whole_string(
    name: str, folders: dict[str, Path], query: str, document: str
) -> None:
    folder = folders[name]
    encoder = opened(folder)

    assert prompt_ids(encoder, query, document) == whole_ids(folder, encoder, query, document)


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(query=texts, document=texts, control=st.sampled_from(CONTROL))
def test_only_the_template_holds_control_tokens(
    name: str, folders: dict[str, Path], query: str, document: str, control: str
) -> None:
    encoder = opened(folders[name])
    control_ids = set(reference(folders[name]).get_added_tokens_decoder())

    attacked = prompt_ids(encoder, query + control, control + document)

    harmless = prompt_ids(encoder, "q", "d")
    assert [id for id in attacked if id in control_ids] == [
        id for id in harmless if id in control_ids
    ]


@pytest.mark.parametrize(("name", "shared"), [("turns", True), ("document first", False)])
def test_the_query_is_shared_only_if_it_is_before_the_document(
    name: str, shared: bool, folders: dict[str, Path]
) -> None:
    encoder = opened(folders[name])

    first, second = (
        encoder.encode_blocking(RankRequest(query, ("a", "b"))).prompts[1].prefix
        for query in ("what", "why")
    )

    assert (first != second) is shared


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_only_the_document_is_cut(name: str, side: Any, folders: dict[str, Path]) -> None:
    encoder = opened(folders[name])
    template = encoder.encode_blocking(RankRequest("q", ("",))).prompts[0]

    encoded = encoder.encode_blocking(
        RankRequest("q", (DOCUMENT,), max_document_tokens=9, side=side)
    )

    [prompt] = encoded.prompts
    ids = [*prompt.prefix, *prompt.suffix]
    text = reference(folders[name]).decode(ids, skip_special_tokens=False)
    start, end = filled(encoder, "q", "\0").split("\0")
    assert text.startswith(start.rstrip(" "))
    assert text.endswith(end)
    assert encoded.kept_tokens == (9,)
    assert len(prompt) <= len(template) + 9


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_best_chunks_characters_are_those_of_the_document(
    name: str, folders: dict[str, Path]
) -> None:
    request = RankRequest(
        "q", (DOCUMENT,), truncation="chunk", max_document_tokens=8, overlap=0, details=True
    )

    encoded = opened(folders[name]).encode_blocking(request)

    spans = encoded.spans
    assert spans
    assert len(spans) > 1
    assert "".join(DOCUMENT[start:end] for start, end in spans) == DOCUMENT


def test_qwens_own_prompt_as_chat_template_is_the_same_template(
    builtin: Path, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").symlink_to(builtin / "tokenizer.json")
    usual = opened(tmp_path)
    state(tmp_path, template=layouts.QWEN, answers=None)

    stated = opened(tmp_path, prefer_stated=True, max_tokens=8191)

    assert stated.template_name == "qwen3"
    assert stated.template == usual.template
    assert stated.instruction == usual.instruction


def test_the_documented_template_is_qwens_own_prompt(builtin: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/models.md").read_text(encoding="utf-8")
    [template] = re.findall(r"^```jinja\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    (tmp_path / "tokenizer.json").symlink_to(builtin / "tokenizer.json")
    state(tmp_path, template=template, answers=None)

    assert opened(tmp_path).template_name == "qwen3"


def test_other_prompts_answers_and_scales_have_other_digests(builtin: Path, tmp_path: Path) -> None:
    statements: list[dict[str, Any]] = [
        {"template": layouts.QWEN},
        {"template": layouts.QWEN, "answers": (CAPITAL_YES, NO)},
        {"template": layouts.QWEN, "answers": (YES, None)},
        {"template": layouts.QWEN, "scale": 0.5},
        {"template": layouts.QWEN, "prompt": "Find it."},
        {"template": layouts.TURNS},
        {"template": layouts.DOCUMENT_FIRST},
    ]
    digests = set()
    for index, statement in enumerate(statements):
        folder = tmp_path / str(index)
        folder.mkdir()
        (folder / "tokenizer.json").symlink_to(builtin / "tokenizer.json")
        state(folder, **statement)
        digests.add(opened(folder).template)

    assert len(digests) == len(statements)


def test_white_space_that_the_template_removes_is_removed(builtin: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").symlink_to(builtin / "tokenizer.json")
    state(tmp_path, template=layouts.TRIMMED)
    encoder = opened(tmp_path)

    request = RankRequest(" q\n", ("  One. Two. \n",), details=True)

    encoded = encoder.encode_blocking(request)
    assert encoded.prompts == encoder.encode_blocking(RankRequest("q", ("One. Two.",))).prompts
    assert encoded.spans == ((2, 11),)


def test_an_instruction_without_a_place_is_refused(folders: dict[str, Path]) -> None:
    encoder = opened(folders["turns"])
    assert encoder.instruction is None
    assert not encoder.takes_instruction

    with pytest.raises(InvalidRequest, match="no place for an instruction: leave it out") as no:
        encoder.encode_blocking(RankRequest("q", ("d",), instruction="Find it."))
    assert no.value.param == "instruction"
    with pytest.raises(BadSettings, match="the prompt of test has no place for one"):
        opened(folders["turns"], prefer_stated=False)


def test_the_instruction_is_the_operators_then_the_saved_then_the_templates(
    builtin: Path, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").symlink_to(builtin / "tokenizer.json")
    state(tmp_path, template=layouts.QWEN.replace("web search query", "question"))
    assert opened(tmp_path, max_tokens=1000).instruction == INSTRUCTION.replace(
        "web search query", "question"
    )

    state(tmp_path, prompt="Find it.", answers=None)

    assert opened(tmp_path, max_tokens=1001).instruction == "Find it."
    assert opened(tmp_path, prefer_stated=False, instruction="Own.").instruction == "Own."


REFUSED = {
    "a query twice": (layouts.TURNS + "{{ messages[0].content }}", "repeats the query"),
    "lower case": (layouts.TURNS.replace("| first }}", "| first | lower }}"), "changes the query"),
    "a limit": (layouts.PARTS.replace("text }}{%", "text[:500] }}{%"), "changes the document"),
    "an escape": (layouts.TURNS.replace("| first }}", "| first | e }}"), "changes the query"),
    "a case": (layouts.TURNS + '{% if "?" in messages[0].content %}!{% endif %}', "changes the"),
    "nothing between": (
        layouts.PLAIN.replace("\nDocument: ", ""),
        "no fixed text before the document where tokens never join",
    ),
    "a syntax error": (layouts.TURNS + "{% if query %}", "is no valid template"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_template_that_is_more_than_fixed_text_is_refused(
    case: str, builtin: Path, tmp_path: Path
) -> None:
    template, message = REFUSED[case]
    (tmp_path / "tokenizer.json").symlink_to(builtin / "tokenizer.json")
    state(tmp_path, template=template, structured=template.count("content[0]") == 2)

    with pytest.raises(BadModel) as refusal:
        opened(tmp_path)

    assert message in str(refusal.value)
    assert "chat_template.jinja" in str(refusal.value)


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ 'x' * 1000000000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% for i in range(1000000) %}{% endfor %}",
        "{{ strftime_now('%Y') }}",
        "{% include 'tokenizer.json' %}",
        "{{ raise_exception('no') }}",
    ],
)
def test_a_hostile_template_is_not_used(attack: str, builtin: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").symlink_to(builtin / "tokenizer.json")
    state(tmp_path, template=layouts.TURNS + attack, answers=(CAPITAL_YES, None))

    with pytest.raises(BadModel, match="but has no chat template for pairs"):
        opened(tmp_path)


@pytest.mark.parametrize("template", [None, layouts.CHAT])
def test_yes_and_no_without_a_template_for_pairs_are_asked_in_qwens_prompt(
    template: str | None, builtin: Path, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").symlink_to(builtin / "tokenizer.json")
    state(tmp_path, template=template, answers=None)

    encoder = opened(tmp_path)

    assert encoder.template_name == "qwen3"
    assert encoder.text == qwen3.TEMPLATE.filled(INSTRUCTION, "{query}", "{document}").replace(
        INSTRUCTION, "{instruction}"
    )


def test_a_template_for_any_role_is_for_pairs_only_where_it_was_saved_for_them(
    builtin: Path, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").symlink_to(builtin / "tokenizer.json")
    state(tmp_path, template=layouts.TRIMMED, modules=False)
    assert opened(tmp_path).template_name == "qwen3"
    assert "asked in Qwen3-Reranker's prompt" in opened(tmp_path).notes[-1]

    state(tmp_path, template=layouts.TRIMMED, answers=None)

    assert opened(tmp_path, max_tokens=999).text == (
        "<|im_start|>query\n{query}<|im_end|>\n<|im_start|>document\n{document}<|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ({"answers": (CAPITAL_YES, None)}, r"answers with the tokens \[9454, None\]"),
        (
            {"prompt": "Find it.", "messages": False, "answers": None},
            "has a default prompt, but no chat template",
        ),
        ({"template": layouts.TURNS, "messages": False}, "modality_config has no message"),
    ],
)
def test_a_prompt_that_is_not_known_is_refused_with_the_next_step(
    statement: dict[str, Any], message: str, builtin: Path, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").symlink_to(builtin / "tokenizer.json")
    state(tmp_path, **statement)

    with pytest.raises(BadModel, match=message) as refusal:
        opened(tmp_path)

    assert "add " in str(refusal.value)
