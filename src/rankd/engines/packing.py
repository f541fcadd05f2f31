"""Batches and logits as bytes, for engines in other processes."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from rankd.types import Prompt


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Token ids of a batch of prompts; each distinct prefix is stored once.

    Attributes:
        prefixes: token ids of the distinct prefixes.
        suffixes: one (index in `prefixes`, token ids) for each prompt.
    """

    prefixes: list[array[int]]
    suffixes: list[tuple[int, array[int]]]


def pack_prompts(prompts: Sequence[Prompt]) -> bytes:
    """A batch in int32: P prefixes and N prompts.

    Equal prefixes are sent once, even when they come from different calls. Order: P, N, the P
    lengths of prefixes, N pairs (prefix index, suffix length), ids of prefixes, ids of suffixes.
    """
    prefix_index: dict[tuple[int, ...], int] = {}
    # By identity first: hashing a long prefix for each document costs more than sending it.
    index_by_id: dict[int, int] = {}
    table = array("i")
    for prompt in prompts:
        index = index_by_id.get(id(prompt.prefix))
        if index is None:
            index = prefix_index.setdefault(prompt.prefix, len(prefix_index))
            index_by_id[id(prompt.prefix)] = index
        table.append(index)
        table.append(len(prompt.suffix))
    packed = array("i", (len(prefix_index), len(prompts)))
    packed.extend(map(len, prefix_index))
    packed.extend(table)
    for ids in prefix_index:
        packed.extend(ids)
    for prompt in prompts:
        packed.extend(prompt.suffix)
    return packed.tobytes()


def unpack_prompts(body: bytes) -> TokenBatch:
    packed = array("i")
    packed.frombytes(body)
    prefix_count, prompt_count = packed[0], packed[1]
    lengths = packed[2 : 2 + prefix_count]
    position = 2 + prefix_count + 2 * prompt_count
    table = packed[2 + prefix_count : position]
    prefixes = []
    for length in lengths:
        prefixes.append(packed[position : position + length])
        position += length
    suffixes = []
    for index, length in zip(table[::2], table[1::2], strict=True):
        suffixes.append((index, packed[position : position + length]))
        position += length
    return TokenBatch(prefixes, suffixes)


def pack_logits(logits: Sequence[float | None]) -> bytes:
    """N flags (1 byte, 1 for None), then N float64.

    None stands for a prompt that does not fit in memory.
    """
    flags = bytes(logit is None for logit in logits)
    return flags + array("d", [logit or 0.0 for logit in logits]).tobytes()


def unpack_logits(body: bytes) -> list[float | None]:
    count = len(body) // (1 + 8)
    logits = array("d")
    logits.frombytes(body[count:])
    return [None if is_none else logit for is_none, logit in zip(body, logits, strict=False)]
