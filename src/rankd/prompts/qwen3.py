"""Qwen3-Reranker's prompt, as in the transformers example of its model card.

Single newlines, a space after each colon, and two newlines after `</think>`: the score is read
at the last token, so with one newline less the model is asked something else.
Source: https://huggingface.co/Qwen/Qwen3-Reranker-0.6B (transformers usage).
"""

from rankd.prompts.template import INSTRUCTION, QUERY, PromptTemplate

SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
PREFIX = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
BEFORE_DOCUMENT = " "
YES, NO = "yes", "no"


def prefix_text(instruction: str, query: str) -> str:
    """What all documents of a request share, after `PREFIX`.

    It ends before the space in front of the document. The tokenizer never joins `:` with a
    space, so encoding both sides separately gives the ids of the whole.
    """
    return f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>:"


def suffix_text(document: str) -> str:
    """The document with the space in front of it, before `SUFFIX`."""
    return BEFORE_DOCUMENT + document


TEMPLATE = PromptTemplate(
    "qwen3",
    before=(PREFIX, prefix_text(INSTRUCTION, QUERY)),
    lead=BEFORE_DOCUMENT,
    after=(SUFFIX,),
)
