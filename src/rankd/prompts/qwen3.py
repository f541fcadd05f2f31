"""Qwen3-Reranker's prompt, as its model card's transformers example builds it.

Single newlines, a space after each colon, and two newlines after `</think>`: the
score is read at that last token, so one newline less asks another question.
Source: https://huggingface.co/Qwen/Qwen3-Reranker-0.6B (transformers usage).
"""

SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".'
)
PREFIX = f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
YES, NO = "yes", "no"


def prefix_text(instruction: str, query: str) -> str:
    """What every document of a request shares.

    It ends before the document's space. The tokenizer never joins `:` with what
    follows a space, so encoding the two sides apart gives the ids of the whole.
    """
    return f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>:"


def suffix_text(document: str) -> str:
    """What follows the question: the document, with the space that sets it off."""
    return f" {document}"
