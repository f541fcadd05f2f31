"""What a checkpoint states of prompt and score is read, or refused by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rankd.errors import BadModel
from rankd.models.checkpoint import locate
from rankd.models.statement import MAX_TEMPLATE_CHARACTERS, Statement, read_statement
from support import layouts
from support.layouts import CAPITAL_NO, CAPITAL_YES, state, write_json

CONFIG = {"architectures": ["Qwen3ForCausalLM"], "vocab_size": 151_669}


def read(folder: Path, **config: Any) -> Statement:
    return read_statement(folder, CONFIG | config)


def test_a_folder_without_these_files_states_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) == Statement()


def test_the_built_in_model_states_nothing() -> None:
    assert locate("builtin").statement == Statement()


def test_answers_scale_and_instruction_are_read_and_noted(tmp_path: Path) -> None:
    state(
        tmp_path,
        template=layouts.TURNS,
        answers=(CAPITAL_YES, None),
        scale=0.25,
        prompt="Find code.",
    )

    statement = read(tmp_path)

    assert statement.answers == (9454, None)
    assert statement.scale == 0.25
    assert statement.instruction == "Find code."
    assert statement.notes == (
        "read 1_LogitScore/config.json: score = logit of token 9454 alone",
        "read 2_Dense/config.json: score times 0.25",
        "read config_sentence_transformers.json: activation Sigmoid, which is the score of rankd",
        "read config_sentence_transformers.json: default instruction (own): 'Find code.'",
    )


def test_answers_are_read_where_modules_json_was_not_copied(tmp_path: Path) -> None:
    state(tmp_path, answers=(CAPITAL_YES, CAPITAL_NO))
    (tmp_path / "modules.json").unlink()

    assert read(tmp_path).answers == (9454, 2753)


def test_prompts_without_a_default_are_noted(tmp_path: Path) -> None:
    state(tmp_path)
    settings = {"prompts": {"code": "Find code.", "empty": ""}, "default_prompt_name": None}
    write_json(tmp_path / "config_sentence_transformers.json", settings)

    statement = read(tmp_path)

    assert statement.instruction is None
    assert statement.notes[-1].endswith("no default of the prompts code")


def change(name: str, **fields: Any) -> Callable[[Path], None]:
    """Change fields of a JSON object in the folder."""

    def apply(folder: Path) -> None:
        file = folder / name
        content = json.loads(file.read_text()) if file.is_file() else {}
        write_json(file, content | fields)

    return apply


def add_module(kind: str, path: str = "3_More") -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        rows = json.loads((folder / "modules.json").read_text())
        write_json(folder / "modules.json", [*rows, {"idx": 3, "path": path, "type": kind}])

    return apply


def write(name: str, text: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return apply


LOGIT_SCORE, DENSE = "1_LogitScore/config.json", "2_Dense/config.json"
SETTINGS, TRANSFORMER = "config_sentence_transformers.json", "sentence_bert_config.json"
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a token of another model": (
        change(LOGIT_SCORE, true_token_id=200_000),
        "true_token_id is 200,000; the model has rows for 151,669",
    ),
    "no true token": (change(LOGIT_SCORE, true_token_id=None), "must be a token id, not None"),
    "a token as text": (change(LOGIT_SCORE, false_token_id="no"), "must be a token id, not 'no'"),
    "other logits": (change(LOGIT_SCORE, module_input_name="logits"), "reads only causal_logits"),
    "no such module folder": (
        add_module("a.LogitScore", "4_LogitScore"),
        "lacks 4_LogitScore/config.json",
    ),
    "pooling": (add_module("sentence_transformers.models.Pooling"), "is an embedding model"),
    "own code": (add_module("custom_st.Ranker"), "has the module Ranker, which rankd cannot"),
    "a path outside": (add_module("a.LogitScore", "../x"), "is not in the model's folder"),
    "no list": (write("modules.json", "{}"), "must hold a JSON array"),
    "no JSON": (write("modules.json", "[,"), "modules.json is not valid JSON"),
    "no module": (write("modules.json", "[3]"), "3 is no module with type and path"),
    "a wide Dense": (change(DENSE, in_features=64), "with one feature"),
    "a Dense with tanh": (change(DENSE, activation_function="torch.nn.Tanh"), "Identity"),
    "a Dense without weights": (
        write("2_Dense/model.safetensors", ""),
        "is not a safetensors file",
    ),
    "a negative scale": (
        lambda folder: layouts.write_scale(folder / "2_Dense", -1.0),
        "a scale above 0",
    ),
    "another activation": (
        change(SETTINGS, activation_fn="torch.nn.modules.activation.Tanh"),
        "activation_fn 'torch.nn.modules.activation.Tanh'",
    ),
    "own activation": (change(SETTINGS, activation_fn="my.Sigmoid"), "activation_fn 'my.Sigmoid'"),
    "no such prompt": (change(SETTINGS, default_prompt_name="x"), "'x' is not in prompts"),
    "an embedding model": (
        change(SETTINGS, model_type="SentenceTransformer"),
        "says that the model is a SentenceTransformer",
    ),
    "lower case": (change(TRANSFORMER, do_lower_case=True), "do_lower_case"),
    "options of the tokenizer": (
        change(TRANSFORMER, processing_kwargs={"text": {"add_special_tokens": True}}),
        "processing_kwargs has add_special_tokens",
    ),
    "a long template": (
        write("chat_template.jinja", "x" * (MAX_TEMPLATE_CHARACTERS + 1)),
        "has 65,537 characters; the limit",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_computed_is_refused_by_its_name(case: str, tmp_path: Path) -> None:
    state(tmp_path, template=layouts.QWEN, scale=0.5, prompt="Find it.")
    read(tmp_path)
    spoil, message = REFUSED[case]
    spoil(tmp_path)

    with pytest.raises(BadModel) as refusal:
        read(tmp_path)

    assert message in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


ODD: list[Any] = [3, "x", [], [3], {}, {"x": 3}, None, True, -1.5]
FIELDS: list[tuple[str, tuple[str, ...]]] = [
    (LOGIT_SCORE, ("true_token_id",)),
    (LOGIT_SCORE, ("false_token_id",)),
    (LOGIT_SCORE, ("module_input_name",)),
    (DENSE, ("in_features",)),
    (DENSE, ("activation_function",)),
    (SETTINGS, ("model_type",)),
    (SETTINGS, ("activation_fn",)),
    (SETTINGS, ("prompts",)),
    (SETTINGS, ("default_prompt_name",)),
    (TRANSFORMER, ("modality_config",)),
    (TRANSFORMER, ("modality_config", "message")),
    (TRANSFORMER, ("modality_config", "message", "format")),
    (TRANSFORMER, ("processing_kwargs",)),
    (TRANSFORMER, ("processing_kwargs", "text")),
    (TRANSFORMER, ("processing_kwargs", "chat_template")),
    (TRANSFORMER, ("processing_kwargs", "chat_template", "chat_template")),
    ("tokenizer_config.json", ("chat_template",)),
    ("tokenizer_config.json", ("eos_token",)),
]


@pytest.mark.parametrize(("name", "path"), FIELDS, ids=lambda value: str(value))
def test_a_value_of_the_wrong_type_is_no_traceback(
    name: str, path: tuple[str, ...], tmp_path: Path
) -> None:
    for index, value in enumerate(ODD):
        folder = tmp_path / str(index)
        folder.mkdir()
        state(folder, scale=0.5, prompt="Find it.", options={"x": 1})
        file = folder / name
        content = json.loads(file.read_text()) if file.is_file() else {}
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = value
        write_json(file, content)

        with suppress(BadModel):
            read(folder)


def test_a_classifier_with_answer_tokens_is_refused(tmp_path: Path) -> None:
    state(tmp_path)

    with pytest.raises(BadModel, match=r"config\.json says that the model is a classifier"):
        read(tmp_path, architectures=["Qwen3ForSequenceClassification"])


def test_an_activation_function_in_config_json_counts_too(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match=r"activation_fn .torch\.nn\.Tanh"):
        read(tmp_path, sentence_transformers={"activation_fn": "torch.nn.Tanh"})


@pytest.mark.parametrize(
    ("files", "file"),
    [
        ({"chat_template.jinja": "a", "tokenizer_config.json": '{"chat_template": "b"}'}, "a"),
        ({"tokenizer_config.json": '{"chat_template": "b"}'}, "b"),
        (
            {
                "tokenizer_config.json": '{"chat_template": [{"name": "x", "template": "c"}, '
                '{"name": "default", "template": "d"}]}'
            },
            "d",
        ),
        ({"chat_template.jinja": "a", "additional_chat_templates/rank.jinja": "e"}, "a"),
    ],
)
def test_a_template_in_a_file_of_its_own_comes_first(
    files: dict[str, str], file: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        write(name, text)(tmp_path)

    template = read(tmp_path).template

    assert template
    assert template.source == file


def test_a_named_template_is_used_if_the_options_name_it(tmp_path: Path) -> None:
    state(tmp_path, template="a", options={"chat_template": "rank", "enable_thinking": False})
    write("additional_chat_templates/rank.jinja", "e")(tmp_path)
    write("tokenizer_config.json", '{"eos_token": {"content": "<end>"}, "pad_token": "<pad>"}')(
        tmp_path
    )

    template = read(tmp_path).template

    assert template
    assert template.source == "e"
    assert template.file == "additional_chat_templates/rank.jinja"
    assert template.variables == {
        "enable_thinking": False,
        "eos_token": "<end>",
        "pad_token": "<pad>",
    }
