"""Reads what a checkpoint's folder states about its prompt and its score.

Sources: the files of sentence-transformers (`modules.json` and the folders it names,
`config_sentence_transformers.json`, `sentence_bert_config.json`), the activation function in
`config.json`, and the chat template. What is stated is used, or the checkpoint is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from rankd.errors import BadModel
from rankd.models.json_files import read_json

# Maximum characters of a chat template. The longest published ones have about 10,000.
MAX_TEMPLATE_CHARACTERS = 65_536

_MODULES, _SETTINGS = "modules.json", "config_sentence_transformers.json"
_TRANSFORMER, _TOKENIZER = "sentence_bert_config.json", "tokenizer_config.json"
_TEMPLATE_FILE, _TEMPLATE_FOLDER = "chat_template.jinja", "additional_chat_templates"

# Modules of embedding models.
_EMBEDDING_MODULES = frozenset({"Pooling", "Normalize", "SpladePooling", "WordEmbeddings"})

# Fields of `processing_kwargs.text` that change neither ids nor score of a pair that fits.
_SIZES = frozenset(
    {"max_length", "truncation", "padding", "padding_side", "pad_to_multiple_of"}
    | {"return_tensors", "return_attention_mask", "logits_to_keep"}
)

# Fields of `processing_kwargs.chat_template` that are no variables of the template.
_NOT_VARIABLES = _SIZES | {"restore_suffix", "tokenize", "return_dict", "chat_template"}

# Types of numbers in a safetensors file, in `struct`'s letters; bfloat16 is the upper half of
# a float32.
_NUMBERS = {"F32": "<f", "F16": "<e", "F64": "<d"}


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """A chat template as it is in the folder.

    Attributes:
        file: where it is, for messages.
        source: in Jinja.
        variables: what the template is rendered with, besides the messages.
        structured: whether a message's content is a list of `{"type": "text", "text": …}`; None:
            the template's text decides.
        for_pairs: saved by sentence-transformers to be rendered with pairs. Otherwise it is one
            only if it names the roles `query` and `document`.
    """

    file: str
    source: str
    variables: Mapping[str, Any] = field(default_factory=dict)
    structured: bool | None = None
    for_pairs: bool = False


@dataclass(frozen=True, slots=True)
class Statement:
    """What a checkpoint states.

    Attributes:
        answers: token ids of the answers, yes and no; no is None if the score is the logit of
            yes alone. None: nothing is stated.
        scale: the logit is multiplied by it; above 0.
        instruction: the saved default prompt.
        template: the chat template.
        plain_pairs: sentence-transformers reads query and document without a chat template.
        notes: what was read, one line each: `read FILE: what follows`.
    """

    answers: tuple[int, int | None] | None = None
    scale: float = 1.0
    instruction: str | None = None
    template: ChatTemplate | None = None
    plain_pairs: bool = False
    notes: tuple[str, ...] = ()


def read_statement(folder: Path, config: Mapping[str, Any]) -> Statement:
    """Read the statement of a checkpoint.

    Args:
        config: the parsed `config.json`.

    Raises:
        BadModel: a file cannot be read, or states what rankd cannot compute; names the file.
    """
    modules = _read_json(folder / _MODULES, list)
    settings = _read_json(folder / _SETTINGS, dict) or {}
    transformer = _read_json(folder / _TRANSFORMER, dict) or {}
    statement = _with_modules(Statement(), folder, config, modules)
    statement = _with_activation(statement, folder, config, settings)
    statement = _with_instruction(statement, folder, settings)
    return _with_template(statement, folder, transformer, saved=modules is not None)


def _read_json(file: Path, kind: type) -> Any:
    """The content of a JSON file; None if there is no such file."""
    return read_json(file, kind) if file.is_file() else None


def _object(file: Path, content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A field that holds an object; empty if it is not there."""
    value = content.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadModel(f"{file}: {name} must be an object, not {value!r}")
    return value


def _noted(statement: Statement, file: str, follows: str, **changes: Any) -> Statement:
    return replace(statement, notes=(*statement.notes, f"read {file}: {follows}"), **changes)


def _with_modules(
    statement: Statement, folder: Path, config: Mapping[str, Any], modules: Sequence[Any] | None
) -> Statement:
    for name, path in _listed_modules(folder, modules):
        module = folder / path
        if name == "LogitScore":
            if "Qwen3ForSequenceClassification" in config.get("architectures", ()):
                raise BadModel(
                    f"{folder / _MODULES} has a LogitScore, which needs an LM head, but "
                    "config.json says that the model is a classifier; save the model again"
                )
            statement = _with_answers(statement, module / "config.json", config)
        elif name == "Dense":
            statement = _with_scale(statement, module)
        elif name != "Transformer":
            raise BadModel(_unknown_module(folder, name))
    return statement


def _listed_modules(folder: Path, modules: Sequence[Any] | None) -> Iterator[tuple[str, str]]:
    """Class name and folder of each module, in order."""
    if modules is None:
        if (folder / "1_LogitScore" / "config.json").is_file():
            yield "LogitScore", "1_LogitScore"
        return
    for entry in modules:
        try:
            name, path = str(entry["type"]).rsplit(".", 1)[-1], str(entry["path"])
        except (TypeError, KeyError):
            raise BadModel(
                f"{folder / _MODULES}: {entry!r} is no module with type and path"
            ) from None
        if path != Path(path).name:
            raise BadModel(f"{folder / _MODULES}: path {path!r} is not in the model's folder")
        yield name, path


def _unknown_module(folder: Path, name: str) -> str:
    if name in _EMBEDDING_MODULES:
        return (
            f"{folder} is an embedding model ({_MODULES} has the module {name}); "
            "rankd serves rerankers: use its reranker, such as Qwen/Qwen3-Reranker-0.6B"
        )
    return (
        f"{folder / _MODULES} has the module {name}, which rankd cannot compute; it computes "
        "Transformer, LogitScore, and Dense from one number to one number as a scale"
    )


def _with_answers(statement: Statement, file: Path, config: Mapping[str, Any]) -> Statement:
    stated = _read_json(file, dict)
    if stated is None:
        raise BadModel(f"{file.parent.parent} lacks {file.parent.name}/{file.name}")
    source = stated.get("module_input_name", "causal_logits")
    if source != "causal_logits":
        raise BadModel(f"{file}: module_input_name {source!r}; rankd reads only causal_logits")
    yes, no = stated.get("true_token_id"), stated.get("false_token_id")
    _check_token(file, "true_token_id", yes, config.get("vocab_size"))
    if no is not None:
        _check_token(file, "false_token_id", no, config.get("vocab_size"))
    follows = (
        f"score = logit of token {yes} alone"
        if no is None
        else f"score = logit of token {yes} - logit of token {no}"
    )
    return _noted(statement, f"{file.parent.name}/{file.name}", follows, answers=(yes, no))


def _check_token(file: Path, name: str, token: Any, rows: int | None) -> None:
    if not isinstance(token, int) or isinstance(token, bool) or token < 0:
        raise BadModel(f"{file}: {name} must be a token id, not {token!r}")
    if rows is not None and token >= rows:
        raise BadModel(f"{file}: {name} is {token:,}; the model has rows for {rows:,}")


def _with_scale(statement: Statement, module: Path) -> Statement:
    """A Dense of one number, without offset and activation function, is a scale."""
    file = module / "config.json"
    stated = _read_json(file, dict) or {}
    activation = str(stated.get("activation_function"))
    if (
        (stated.get("in_features"), stated.get("out_features")) != (1, 1)
        or stated.get("module_input_name") != "scores"
        or stated.get("module_output_name") not in (None, "scores")
        or not activation.endswith(".Identity")
        or stated.get("use_residual")
    ):
        raise BadModel(
            f"{file}: rankd computes a Dense only from scores to scores, with one feature, "
            "the activation function Identity and no residual: a scale"
        )
    numbers = _read_numbers(module / "model.safetensors")
    scale, offset = numbers.get("linear.weight", 0.0), numbers.get("linear.bias", 0.0)
    if not 0 < scale < float("inf") or offset:
        raise BadModel(f"{module}: rankd takes a scale above 0 without offset, not {numbers}")
    return _noted(
        statement,
        f"{module.name}/config.json",
        f"score times {scale:g}",
        scale=statement.scale * scale,
    )


def _read_numbers(file: Path) -> dict[str, float]:
    """The tensors of one element in a safetensors file."""
    try:
        content = file.read_bytes()
        start = 8 + int.from_bytes(content[:8], "little")
        header = orjson.loads(content[8:start])
        return {
            name: _number(entry["dtype"], content[start + entry["data_offsets"][0] :])
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError, struct.error):
        raise BadModel(f"{file} is not a safetensors file with a number") from None


def _number(dtype: str, content: bytes) -> float:
    if dtype == "BF16":
        return float(struct.unpack("<f", b"\0\0" + content[:2])[0])
    form = _NUMBERS[dtype]
    return float(struct.unpack(form, content[: struct.calcsize(form)])[0])


def _with_activation(
    statement: Statement, folder: Path, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> Statement:
    """Sigmoid and Identity differ only in which of score and logit is shown."""
    nested = _object(folder / "config.json", config, "sentence_transformers")
    stated = {
        _SETTINGS: settings.get("activation_fn"),
        "config.json": nested.get("activation_fn")
        or config.get("sbert_ce_default_activation_function"),
    }
    for file, name in stated.items():
        if name is None:
            continue
        kind = str(name).rsplit(".", 1)[-1]
        if kind not in ("Sigmoid", "Identity") or not str(name).startswith("torch."):
            raise BadModel(
                f"{folder / file}: activation_fn {name!r}; rankd answers with the sigmoid of the "
                "logit, or with raw_scores the logit: save the model with Sigmoid or Identity"
            )
        shown = "score" if kind == "Sigmoid" else "raw score (raw_scores)"
        statement = _noted(statement, file, f"activation {kind}, which is the {shown} of rankd")
    return statement


def _with_instruction(statement: Statement, folder: Path, settings: Mapping[str, Any]) -> Statement:
    kind = settings.get("model_type", "CrossEncoder")
    if kind != "CrossEncoder":
        raise BadModel(
            f"{folder / _SETTINGS} says that the model is a {kind}; rankd serves rerankers "
            "(CrossEncoder): use a reranker, such as Qwen/Qwen3-Reranker-0.6B"
        )
    prompts = _object(folder / _SETTINGS, settings, "prompts")
    name = settings.get("default_prompt_name")
    if name is None:
        unused = ", ".join(sorted(key for key, text in prompts.items() if text))
        return (
            _noted(statement, _SETTINGS, f"no default of the prompts {unused}")
            if unused
            else statement
        )
    text = prompts.get(str(name))
    if not isinstance(text, str):
        raise BadModel(f"{folder / _SETTINGS}: default_prompt_name {name!r} is not in prompts")
    if not text:
        return statement
    return _noted(statement, _SETTINGS, f"default instruction ({name}): {text!r}", instruction=text)


def _with_template(
    statement: Statement, folder: Path, transformer: Mapping[str, Any], *, saved: bool
) -> Statement:
    if transformer.get("do_lower_case"):
        raise BadModel(f"{folder / _TRANSFORMER}: rankd cannot lower texts (do_lower_case)")
    if (limit := transformer.get("max_seq_length")) is not None:
        statement = _noted(
            statement, _TRANSFORMER, f"max_seq_length {limit}; set --max-tokens to use it"
        )
    modalities = _object(folder / _TRANSFORMER, transformer, "modality_config")
    statement = replace(statement, plain_pairs=saved and "message" not in modalities)
    options = _options(folder, transformer)
    name = options.get("chat_template")
    if name is not None and not isinstance(name, str):
        raise BadModel(f"{folder / _TRANSFORMER}: chat_template must be a text, not {name!r}")
    found = _find_template(folder, name)
    if found is None:
        return statement
    file, source = found
    if len(source) > MAX_TEMPLATE_CHARACTERS:
        raise BadModel(
            f"{folder / file} has {len(source):,} characters; "
            f"the limit for a chat template is {MAX_TEMPLATE_CHARACTERS:,}"
        )
    variables = {name: value for name, value in options.items() if name not in _NOT_VARIABLES}
    form = _object(folder / _TRANSFORMER, modalities, "message").get("format")
    template = ChatTemplate(
        file=file,
        source=source,
        variables=_special_tokens(folder) | variables,
        structured=None if form in (None, "auto") else form == "structured",
        for_pairs=saved and "message" in modalities,
    )
    return replace(statement, template=template)


def _options(folder: Path, transformer: Mapping[str, Any]) -> dict[str, Any]:
    """The `processing_kwargs` for the chat template."""
    file = folder / _TRANSFORMER
    stated = _object(file, transformer, "processing_kwargs")
    texts = _object(file, stated, "text") | _object(file, stated, "common")
    if unknown := sorted(texts.keys() - _SIZES):
        raise BadModel(
            f"{file}: processing_kwargs has {', '.join(unknown)}, which rankd cannot do; "
            "save the model without"
        )
    return _object(file, stated, "chat_template")


def _find_template(folder: Path, name: str | None) -> tuple[str, str] | None:
    """File and text of the template that transformers would use; files win over the config.

    Args:
        name: of one of several templates, or the text of another one; None: the default.
    """
    templates = _template_files(folder)
    if not templates:
        stated = (_read_json(folder / _TOKENIZER, dict) or {}).get("chat_template")
        templates = {key: (_TOKENIZER, text) for key, text in _listed_templates(stated).items()}
    if name is not None and name not in templates:
        return (_TRANSFORMER, name)
    return templates.get(name or "default")


def _listed_templates(stated: Any) -> dict[str, str]:
    """The templates in `tokenizer_config.json` by name: one text, a list, or an object."""
    if isinstance(stated, list):
        entries = [entry for entry in stated if isinstance(entry, dict)]
        stated = {str(entry.get("name")): entry.get("template") for entry in entries}
    elif not isinstance(stated, dict):
        stated = {"default": stated}
    return {name: text for name, text in stated.items() if isinstance(text, str)}


def _template_files(folder: Path) -> dict[str, tuple[str, str]]:
    """File and text of each template in a file of its own, by name."""
    files = {path.stem: path for path in sorted((folder / _TEMPLATE_FOLDER).glob("*.jinja"))}
    if (folder / _TEMPLATE_FILE).is_file():
        files["default"] = folder / _TEMPLATE_FILE
    templates = {}
    for name, path in files.items():
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as problem:
            raise BadModel(f"cannot read {path}: {problem}") from None
        templates[name] = (str(path.relative_to(folder)), text)
    return templates


def _special_tokens(folder: Path) -> dict[str, str]:
    """The named special tokens, such as `eos_token`, which templates may use."""
    found = {}
    for file in ("special_tokens_map.json", _TOKENIZER):
        for name, value in (_read_json(folder / file, dict) or {}).items():
            text = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(text, str):
                found[name] = text
    return found
