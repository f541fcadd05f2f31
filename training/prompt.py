"""Qwen3-Reranker's prompt, in the three pieces that the training shares between documents."""

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query"
    ' and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>'
    "\n<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


def head(instruction: str) -> str:
    return f"{PREFIX}<Instruct>: {instruction}\n<Query>:"


def question(query: str) -> str:
    return f" {query}\n<Document>:"


def prompt(query: str, document: str, instruction: str = INSTRUCTION) -> str:
    """The whole text, as Qwen's own example builds it."""
    return f"{head(instruction)}{question(query)} {document}{SUFFIX}"
