"""The prompt and the answers of a checkpoint: its own, or Qwen3-Reranker's."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rankd.errors import BadModel
from rankd.models.checkpoint import Checkpoint
from rankd.models.statement import Statement
from rankd.prompts import qwen3
from rankd.prompts.chat_template import RenderedPair, rendered_pair
from rankd.prompts.segments import prove, segmented
from rankd.prompts.template import PromptTemplate
from rankd.prompts.tokenizer import Tokenizer
from rankd.types import AnswerTokenIds

_NO_TEMPLATE = (
    "add a chat_template.jinja with the roles query and document, as in docs/models.md of rankd, "
    "so that the prompt is known"
)

_GENERAL = "no place for a query and a document; asked in Qwen3-Reranker's prompt"


@dataclass(frozen=True, slots=True)
class ModelPrompt:
    """How a model is asked, and which answers are read.

    Attributes:
        instructed: the prompt with an instruction; None if it has no place for one.
        bare: the prompt without; None if there is always an instruction.
        stated_instruction: the checkpoint's default instruction.
        notes: what the checkpoint states, one line each.
    """

    answers: AnswerTokenIds
    instructed: PromptTemplate | None
    bare: PromptTemplate | None = None
    stated_instruction: str | None = None
    notes: tuple[str, ...] = ()

    def default_instruction(self, otherwise: str) -> str | None:
        """The instruction of a server that sets none; None if `bare` is its prompt.

        Args:
            otherwise: used if the checkpoint states nothing and the prompt needs one.
        """
        if self.stated_instruction is not None or self.bare is not None:
            return self.stated_instruction
        return otherwise


def model_prompt(checkpoint: Checkpoint, tokenizer: Tokenizer) -> ModelPrompt:
    """What a checkpoint states, or Qwen3-Reranker's own.

    Raises:
        BadModel: rankd cannot build the prompt that is stated, or none is stated where the
            answers are not Qwen3-Reranker's.
    """
    statement = checkpoint.statement
    yes_no = (tokenizer.single(qwen3.YES), tokenizer.single(qwen3.NO))
    answers = AnswerTokenIds(*(statement.answers or yes_no), statement.scale)
    pair = _pair(checkpoint, statement)
    if pair is None:
        if statement.answers not in (None, yes_no):
            raise BadModel(
                f"{checkpoint.path} answers with the tokens {list(statement.answers or ())}, not "
                f"with yes and no, but has no chat template for pairs; {_NO_TEMPLATE}"
            )
        if statement.plain_pairs and statement.instruction:
            raise BadModel(
                f"{checkpoint.path} has a default prompt, but no chat template for pairs that says "
                f"where it belongs; {_NO_TEMPLATE}"
            )
        notes = statement.notes
        if statement.template is not None:
            notes = (*notes, f"read {statement.template.file}: {_GENERAL}")
        return ModelPrompt(answers, qwen3.TEMPLATE, None, statement.instruction, notes)
    return _stated(checkpoint, tokenizer, pair, answers)


def _pair(checkpoint: Checkpoint, statement: Statement) -> RenderedPair | None:
    template = statement.template
    pair = None if template is None else rendered_pair(template)
    if pair and template and statement.plain_pairs:
        raise BadModel(
            f"{checkpoint.path} has a chat template for pairs ({template.file}) that "
            "sentence_bert_config.json does not use (modality_config has no message): add the "
            "modality message, or remove the template"
        )
    return pair


def _stated(
    checkpoint: Checkpoint, tokenizer: Tokenizer, pair: RenderedPair, answers: AnswerTokenIds
) -> ModelPrompt:
    statement = checkpoint.statement
    assert statement.template is not None
    file = statement.template.file
    instructed, bare = (
        text and _template(checkpoint, tokenizer, text, pair)
        for text in (pair.instructed, pair.bare)
    )
    default = statement.instruction or pair.default
    notes = [*statement.notes, f"read {file}: {_order(pair)}"]
    if instructed is None:
        default = None
        if statement.instruction:
            notes.append(f"read {file}: no place for the default instruction, which is not used")
    elif pair.default is not None:
        bare = None
        if not statement.instruction:
            notes.append(f"read {file}: default instruction {pair.default!r}")
    if instructed == qwen3.TEMPLATE:
        notes.append(f"read {file}: it is Qwen3-Reranker's own prompt")
    return ModelPrompt(answers, instructed or None, bare or None, default, tuple(notes))


def _order(pair: RenderedPair) -> str:
    slots = sorted(pair.slots, key=pair.text.index)
    return "prompt with " + ", ".join(slot.strip("\0") for slot in slots)


def _template(
    checkpoint: Checkpoint, tokenizer: Tokenizer, text: str, pair: RenderedPair
) -> PromptTemplate:
    if text == qwen3.TEMPLATE.text and not pair.strips:
        return qwen3.TEMPLATE
    assert checkpoint.statement.template is not None
    template = segmented(checkpoint.statement.template.file, text, tokenizer)
    template = replace(template, strips=pair.strips)
    prove(template, tokenizer, checkpoint.path / "tokenizer.json")
    return template
