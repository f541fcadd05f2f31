"""Checkpoints that state how they are asked, in the layouts of other libraries.

The files are written as sentence-transformers 6.2 writes them; one test compares them with what it
saves itself.
"""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

from support.checkpoints import NO, YES

# "Yes" and "No" in Qwen's vocabulary.
CAPITAL_YES, CAPITAL_NO = 9454, 2753

_ROLE = '{{{{ messages | selectattr("role", "eq", "{0}") | map(attribute="content") | first{1} }}}}'
_QUERY, _DOCUMENT = _ROLE.format("query", ""), _ROLE.format("document", "")
_WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
_INSTRUCTION = _ROLE.format("system", f' | default("{_WEB_SEARCH}")')

_JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)

# Qwen3-Reranker's prompt. Jinja drops one newline at the end of a file.
QWEN = (
    f"<|im_start|>system\n{_JUDGE}<|im_end|>\n<|im_start|>user\n<Instruct>: {_INSTRUCTION}\n"
    f"<Query>: {_QUERY}\n<Document>: {_DOCUMENT}<|im_end|>\n<|im_start|>assistant\n"
    "<think>\n\n</think>\n\n\n"
)
# The query as system turn, the document as user turn, no instruction.
TURNS = (
    f"<|im_start|>system\n{_QUERY}<|im_end|>\n<|im_start|>user\n{_DOCUMENT}<|im_end|>\n"
    "<|im_start|>assistant\n\n"
)
DOCUMENT_FIRST = (
    f"<|im_start|>user\nDocument:\n{_DOCUMENT}\n\nQuery: {_QUERY}\n{_INSTRUCTION}<|im_end|>\n"
    "<|im_start|>assistant\n\n"
)
# Nothing but text: the score is read after the colon.
PLAIN = f"Query: {_QUERY}\nDocument: {_DOCUMENT}\nRelevant:"
PARTS = (
    '{% for message in messages %}{% if message.role == "query" %}<Query>: '
    '{{ message.content[0].text }}\n{% elif message.role == "document" %}<Document>: '
    "{{ message.content[0].text }}{% endif %}{% endfor %}<|im_end|>\n<|im_start|>assistant\n\n"
)
TRIMMED = (
    "{%- for message in messages -%}<|im_start|>{{ message.role }}\n"
    "{{ message.content | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# The instruction's line is there only if there is an instruction.
OPTIONAL = (
    '{% for message in messages if message.role == "system" %}<Instruct>: {{ message.content }}\n'
    f"{{% endfor %}}<Query>: {_QUERY}\n<Document>: {_DOCUMENT}<|im_end|>\n"
)
# As chat models have it: other roles than these are left out.
CHAT = (
    "{% for message in messages %}{% if message.role in ('user', 'assistant', 'system') %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endif %}{% endfor %}"
)


def stated(folder: Path, base: Path, **statement: Any) -> Path:
    """A copy of a checkpoint, with the files that `state` writes."""
    folder.mkdir(parents=True)
    for file in base.iterdir():
        if file.suffix == ".safetensors":
            os.link(file, folder / file.name)
        elif file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    state(folder, **statement)
    return folder


def state(
    folder: Path,
    *,
    template: str | None = None,
    answers: tuple[int, int | None] | None = (YES, NO),
    scale: float | None = None,
    prompt: str | None = None,
    task: str = "text-generation",
    structured: bool = False,
    messages: bool = True,
    options: dict[str, Any] | None = None,
    activation: str = "torch.nn.modules.activation.Sigmoid",
    modules: bool = True,
) -> None:
    """Write what a reranker states as sentence-transformers does.

    Args:
        template: text of `chat_template.jinja`.
        answers: token ids of `1_LogitScore`; None writes no such module.
        scale: of a `Dense` with one weight.
        prompt: the default prompt.
        messages: whether pairs go through the chat template.
        options: of the chat template.
        modules: False writes the template only.
    """
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    if not modules:
        return
    text = {"method": "forward", "method_output_name": "logits"}
    message = text | {"format": "structured" if structured else "flat"}
    transformer = {
        "transformer_task": task,
        "modality_config": {"text": text} | ({"message": message} if messages else {}),
        "module_output_name": "causal_logits" if task == "text-generation" else "scores",
    }
    if options:
        transformer["processing_kwargs"] = {"chat_template": options}
    write_json(folder / "sentence_bert_config.json", transformer)
    listed = [("", "sentence_transformers.base.modules.transformer.Transformer")]
    if answers is not None:
        kind = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
        listed.append(("1_LogitScore", kind))
        fields = {"true_token_id": answers[0], "false_token_id": answers[1]}
        write_json(folder / "1_LogitScore/config.json", fields)
    if scale is not None:
        listed.append(("2_Dense", "sentence_transformers.base.modules.dense.Dense"))
        write_scale(folder / "2_Dense", scale)
    rows = [
        {"idx": index, "name": str(index), "path": path, "type": kind}
        for index, (path, kind) in enumerate(listed)
    ]
    write_json(folder / "modules.json", rows)
    settings = {"model_type": "CrossEncoder", "activation_fn": activation}
    prompts = {
        "prompts": {"own": prompt} if prompt else {},
        "default_prompt_name": prompt and "own",
    }
    write_json(folder / "config_sentence_transformers.json", settings | prompts)


def write_scale(module: Path, scale: float) -> None:
    """Write a `Dense` from one number to one number."""
    fields = {
        "in_features": 1,
        "out_features": 1,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
        "module_input_name": "scores",
        "module_output_name": "scores",
    }
    write_json(module / "config.json", fields)
    header = b'{"linear.weight":{"dtype":"F32","shape":[1,1],"data_offsets":[0,4]}}'
    numbers = len(header).to_bytes(8, "little") + header + struct.pack("<f", scale)
    (module / "model.safetensors").write_bytes(numbers)


def write_json(file: Path, content: Any) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2))
