"""What clients send that format the prompt themselves, written out as in the pages that told them.

`WAYS` are the eight ways of sending a pair that people were seen to use. The strings repeat
`rankd.prompts.qwen3` on purpose: a change there must not change what clients send.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# From the page of vllm-ascend, `docs/source/tutorials/models/Qwen3_reranker.md`. The example of
# vLLM, GPUStack's environment variable and a model card of sentence-transformers have the same.
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

# The request of that page, and the same pairs bare.
TUTORIAL_QUERY = "What is the capital of China?"
TUTORIAL_DOCUMENTS = (
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other. It gives weight to physical "
    "objects and is responsible for the movement of planets around the sun.",
)
BARE: dict[str, Any] = {"query": TUTORIAL_QUERY, "documents": [*TUTORIAL_DOCUMENTS]}
TUTORIAL: dict[str, Any] = {
    "query": PREFIX + "<Instruct>: Given a web search query, retrieve relevant passages that "
    "answer the query\n<Query>: What is the capital of China?\n",
    "documents": [
        "<Document>: The capital of China is Beijing.<|im_end|>\n<|im_start|>assistant\n"
        "<think>\n\n</think>\n\n",
        "<Document>: Gravity is a force that attracts two bodies towards each other. It gives "
        "weight to physical objects and is responsible for the movement of planets around the "
        "sun.<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
    ],
}


@dataclass(frozen=True)
class Way:
    """A way of sending a query and its documents.

    Attributes:
        kind: as what it is recognized; None: as nothing.
    """

    kind: str | None
    query: Callable[[str], str]
    document: Callable[[str], str]

    def body(self, query: str, documents: Sequence[str]) -> dict[str, Any]:
        return {"query": self.query(query), "documents": [*map(self.document, documents)]}


def _bare(text: str) -> str:
    return text


def framed_query(query: str, instruction: str = INSTRUCTION) -> str:
    return f"{PREFIX}<Instruct>: {instruction}\n<Query>: {query}\n"


def framed_document(document: str) -> str:
    return f"<Document>: {document}{SUFFIX}"


WAYS: Mapping[str, Way] = {
    "plain": Way(None, _bare, _bare),
    "vLLM's and vllm-ascend's tutorials": Way("whole", framed_query, framed_document),
    "older form: double newlines, turn closed twice": Way(
        "whole",
        lambda query: f"{PREFIX}<Instruct>: {INSTRUCTION}\n\n<Query>: {query}\n\n",
        lambda document: f"<Document>: {document}<|im_end|>\n{SUFFIX}",
    ),
    "without the think block": Way(
        "whole",
        framed_query,
        lambda document: f"<Document>: {document}<|im_end|>\n<|im_start|>assistant\n",
    ),
    "query formatted, documents bare": Way("query", framed_query, _bare),
    "only `<Instruct>:` and `<Query>:` in the query": Way(
        "labels", lambda query: f"<Instruct>: {INSTRUCTION}\n<Query>: {query}", _bare
    ),
    "`Instruct:` and `Query:` of Qwen3-Embedding": Way(
        "embedding", lambda query: f"Instruct: {INSTRUCTION}\nQuery: {query}", _bare
    ),
    "documents formatted, query bare": Way("documents", _bare, framed_document),
}
