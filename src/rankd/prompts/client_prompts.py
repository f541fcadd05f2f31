"""Recognizes Qwen3-Reranker's prompt in the texts that clients send.

Clients written for servers without a template, as in the tutorials of vLLM and vllm-ascend, send
the first half of the prompt as the query and the second half with each document. Only this frame
as it is published is taken off: at the edges, from the query and every document at once, and once.
What is left is text like any other. Every step is linear in the length of the texts.
Sources: vLLM `examples/online_serving/qwen3_rerank_client.py`, vllm-ascend
`docs/source/tutorials/models/Qwen3_reranker.md`, and the vLLM example of QwenLM/Qwen3-Embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rankd.prompts import qwen3

# Each query with its documents.
Queries = Sequence[tuple[str, tuple[str, ...]]]

# What clients send of the prompt:
# - whole: the frame around the query and every document, and nothing else;
# - nested: the same, and one more frame or a part of one inside;
# - mixed: parts on both sides that are not the whole frame, or different ones in one request;
# - query: the frame around the query only; labels: no more than the query's labels;
# - documents: parts in documents only;
# - embedding: the prompt of Qwen3-Embedding around the query.
Kind = Literal["whole", "nested", "mixed", "query", "labels", "documents", "embedding"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_DOCUMENT_LABEL = "<Document>:"
_QUERY_OPENING = f"{qwen3.PREFIX}<Instruct>:"
_QUERY_LABEL = "<Query>:"

# The end of the prompt without its last newlines: with and without the think block. The older
# form closes the user's turn twice.
_TURN = "<|im_end|>\n<|im_start|>assistant"
_THOUGHT = qwen3.SUFFIX.rstrip("\n")
ENDINGS = (f"<|im_end|>\n{_THOUGHT}", _THOUGHT, f"<|im_end|>\n{_TURN}", _TURN)

_FRAME_MARKS = ("<|im_start|>", "Judge whether the Document meets")
_LABEL_MARKS = ("<Instruct>:", _QUERY_LABEL)
_EMBEDDING_MARK = "Instruct:"

# How texts begin that may hold a prompt. Other texts need no closer look, except for the end of a
# document; there the last newlines do not count.
QUERY_MARKS = (*_FRAME_MARKS, *_LABEL_MARKS, _EMBEDDING_MARK)
DOCUMENT_MARKS = (_DOCUMENT_LABEL, qwen3.PREFIX)


@dataclass(frozen=True, slots=True)
class ClientPrompt:
    """The prompt that the texts of one request hold.

    Attributes:
        instruction: the one in the frame; empty unless `bare` is set.
        bare: the queries and documents without the frame, in the order of the request; empty if
            the frame is not whole.
    """

    kind: Kind
    instruction: str = ""
    bare: Queries = ()


def recognize(queries: Queries) -> ClientPrompt | None:
    """The prompt in the texts of a request; None if there is none."""
    prompts = [_recognize_one(query, documents) for query, documents in queries]
    found = [prompt for prompt in prompts if prompt is not None]
    if not found:
        return None
    whole = [prompt for prompt in found if prompt.bare]
    if not whole:
        return found[0]
    if len(whole) < len(prompts) or len({prompt.instruction for prompt in whole}) > 1:
        return ClientPrompt("mixed")
    nested = any(prompt.kind == "nested" for prompt in whole)
    bare = tuple(pair for prompt in whole for pair in prompt.bare)
    return ClientPrompt("nested" if nested else "whole", whole[0].instruction, bare)


def label_length(document: str) -> int:
    """Characters before the text of a document in a frame."""
    return len(_DOCUMENT_LABEL) + document.startswith(" ", len(_DOCUMENT_LABEL))


def _recognize_one(query: str, documents: tuple[str, ...]) -> ClientPrompt | None:
    opened = _open_query(query)
    if opened is not None:
        instruction, text = opened
        bare = tuple([text for text in map(_open_document, documents) if text is not None])
        if len(bare) == len(documents):
            kind: Kind = "nested" if _is_framed(text, bare) else "whole"
            return ClientPrompt(kind, instruction, ((text, bare),))
    part = _partial_kind(query.lstrip(), documents)
    return None if part is None else ClientPrompt(part)


def _partial_kind(query: str, documents: Sequence[str]) -> Kind | None:
    marked = any(document.startswith(DOCUMENT_MARKS) for document in documents)
    marked = marked or any(text.rstrip("\n").endswith(ENDINGS) for text in documents[:1])
    if query.startswith((*_FRAME_MARKS, *_LABEL_MARKS)):
        if marked:
            return "mixed"
        return "query" if query.startswith(_FRAME_MARKS) else "labels"
    if query.startswith(_EMBEDDING_MARK) and "\nQuery:" in query:
        return "embedding"
    return "documents" if marked else None


def _is_framed(query: str, documents: Sequence[str]) -> bool:
    """Whether texts without their frame hold another one, or a part of one."""
    return (
        query.lstrip().startswith(QUERY_MARKS)
        or f"\n{_QUERY_LABEL}" in query
        or any(document.startswith(DOCUMENT_MARKS) for document in documents)
        or any(document.rstrip("\n").endswith(ENDINGS) for document in documents)
    )


def _open_query(query: str) -> tuple[str, str] | None:
    """Instruction and query in the frame; None if it is not whole, or the query is blank.

    The first label ends the instruction, with or without a newline before it, as in the prompt for
    pictures. The client wrote what is before the label, its user what is after it.
    """
    if not query.startswith(_QUERY_OPENING):
        return None
    instruction, _, text = query[len(_QUERY_OPENING) :].partition(_QUERY_LABEL)
    text = text.rstrip("\n").removeprefix(" ")
    if not text.strip():
        return None
    return instruction.rstrip("\n").removeprefix(" "), text


def _open_document(document: str) -> str | None:
    """The text in the frame; None if it is not whole."""
    if not document.startswith(_DOCUMENT_LABEL):
        return None
    text = document[len(_DOCUMENT_LABEL) :].rstrip("\n")
    ending = next((ending for ending in ENDINGS if text.endswith(ending)), None)
    return None if ending is None else text.removesuffix(ending).removeprefix(" ")
