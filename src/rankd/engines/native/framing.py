"""What crosses the pipe between server and worker.

A frame is a length (4 bytes, little-endian, of what follows), a kind (1 byte) and a
body. The worker tells of each layer that it has loaded (LOADED, JSON: how many, of how
many), says HELLO once (JSON), then answers each batch with LOGITS, in order, and each
PING at once with a PONG, whatever it is computing.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from rankd.types import Prompt

LENGTH = struct.Struct("<I")
LOADED, HELLO, BATCH, LOGITS, PING, PONG = b"%", b"H", b"B", b"L", b"?", b"!"


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Distinct heads, and documents that name theirs by its place.

    Attributes:
        tails: (place of the head, ids of the document and the template's end).
    """

    prefixes: list[array[int]]
    suffixes: list[tuple[int, array[int]]]


def frame(kind: bytes, body: bytes) -> bytes:
    return LENGTH.pack(1 + len(body)) + kind + body


def pack_prompts(prompts: Sequence[Prompt]) -> bytes:
    """Equal heads are sent once, even when they came with different calls."""
    places: dict[tuple[int, ...], int] = {}
    # Hashing a long head for each of its documents would cost more than sending them.
    known: dict[int, int] = {}
    table = array("i")
    for prompt in prompts:
        place = known.get(id(prompt.prefix))
        if place is None:
            place = known[id(prompt.prefix)] = places.setdefault(prompt.prefix, len(places))
        table.append(place)
        table.append(len(prompt.suffix))
    packed = array("i", (len(places), len(prompts)))
    packed.extend(map(len, places))
    packed.extend(table)
    for ids in places:
        packed.extend(ids)
    for prompt in prompts:
        packed.extend(prompt.suffix)
    return packed.tobytes()


def unpack_prompts(body: bytes) -> TokenBatch:
    packed = array("i")
    packed.frombytes(body)
    count, documents = packed[0], packed[1]
    lengths = packed[2 : 2 + count]
    table = packed[2 + count : 2 + count + 2 * documents]
    place = 2 + count + 2 * documents
    heads = []
    for length in lengths:
        heads.append(packed[place : place + length])
        place += length
    tails = []
    for head, length in zip(table[::2], table[1::2], strict=True):
        tails.append((head, packed[place : place + length]))
        place += length
    return TokenBatch(heads, tails)


def pack_logits(logits: Sequence[float | None]) -> bytes:
    """None stands for a prompt that the memory did not suffice for."""
    flags = bytes(logit is None for logit in logits)
    return flags + array("d", [logit or 0.0 for logit in logits]).tobytes()


def unpack_logits(body: bytes) -> list[float | None]:
    count = len(body) // (1 + 8)
    logits = array("d")
    logits.frombytes(body[count:])
    return [None if lacking else logit for lacking, logit in zip(body, logits, strict=False)]
