"""Frames on the pipes between the server and its worker process.

A frame is a length (4 bytes, little-endian, of kind and body), a kind (1 byte) and a body.
The worker sends:

- LOADED after each layer it has loaded: JSON, [layers loaded, layers in all];
- HELLO once: JSON, a `WorkerInfo`, or `error` and `message` when it cannot start;
- LOGITS for each BATCH, in the order of the batches;
- PONG for each PING, at once, even while it computes.

`engines/packing.py` makes the bodies of BATCH and LOGITS.
"""

from __future__ import annotations

import struct

from rankd.engines.packing import (
    TokenBatch,
    pack_logits,
    pack_prompts,
    unpack_logits,
    unpack_prompts,
)

__all__ = [
    "TokenBatch",
    "frame",
    "pack_logits",
    "pack_prompts",
    "unpack_logits",
    "unpack_prompts",
]

LENGTH = struct.Struct("<I")
LOADED, HELLO, BATCH, LOGITS, PING, PONG = b"%", b"H", b"B", b"L", b"?", b"!"


def frame(kind: bytes, body: bytes) -> bytes:
    return LENGTH.pack(1 + len(body)) + kind + body
