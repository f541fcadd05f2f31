"""Reads `tokenizer.json`: the vocabulary for `tiktoken`, and the normalizer.

Each function returns None for what cannot be reproduced id by id.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import tiktoken
import tokenizers

Normalize = Callable[[str], str]

# How the splitting pattern of GPT-2 and its successors ends: a run of white space leaves its last
# character to the word after it.
_WHITE_SPACE = r"|\s+(?!\S)|\s+"

# Texts of these characters alone are their own NFC: European letters, Chinese, Japanese, Korean and
# their punctuation. None of them changes, and none combines with the one before it.
_COMPOSED = re.compile(
    "[\0-\u02ff\u0388-\u03ce\u0400-\u0482\u2010-\u2027\u3000-\u3029\u3041-\u3096\u30a1-\u30fa"
    "\u4e00-\u9fff\uac00-\ud7a3\uff01-\uff60]*"
)


def byte_pair_encoding(spec: dict[str, Any]) -> tiktoken.Encoding | None:
    """The vocabulary for `tiktoken`; None if `tiktoken` would give other ids."""
    model = spec["model"]
    pattern = _split_pattern(spec.get("pre_tokenizer"))
    unusual = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
    if model["type"] != "BPE" or pattern is None or any(model.get(name) for name in unusual):
        return None
    if model.get("byte_fallback") or model.get("ignore_merges"):
        return None
    if not _merges_follow_ids(model):
        return None
    control = {token["content"] for token in spec["added_tokens"]}
    byte_of = _byte_alphabet()
    ranks = {}
    for token, rank in model["vocab"].items():
        if token in control:
            continue
        try:
            ranks[bytes(byte_of[character] for character in token)] = rank
        except KeyError:
            return None
    if any(bytes([byte]) not in ranks for byte in range(256)):
        return None
    return tiktoken.Encoding(
        "checkpoint", pat_str=_grouped(pattern), mergeable_ranks=ranks, special_tokens={}
    )


def _grouped(pattern: str) -> str:
    """The same pattern, with all alternatives before its lookahead in one group.

    `tiktoken`'s regular expressions backtrack one by one through the alternatives of a pattern
    that has a lookahead. It matches a group without one in a single pass: a fifth faster.
    """
    words = pattern.removesuffix(_WHITE_SPACE)
    return pattern if words == pattern else f"(?:{words}){_WHITE_SPACE}"


def _merges_follow_ids(model: dict[str, Any]) -> bool:
    """Whether merges are in the order of their ids; `tiktoken` assumes that they are."""
    vocab = model["vocab"]
    last = -1
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        rank = vocab.get(left + right, -1)
        if rank <= last:
            return False
        last = rank
    return True


def _split_pattern(pre_tokenizer: dict[str, Any] | None) -> str | None:
    """The regular expression of `Split(regex, isolated)` + `ByteLevel`; else None."""
    match pre_tokenizer:
        case {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": {"Regex": str(pattern)},
                    "behavior": "Isolated",
                    "invert": False,
                },
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:
            return pattern
    return None


def normalizer(spec: dict[str, Any]) -> Normalize | None:
    """The normalizer as a function; None if it is neither absent, NFC, nor NFC + Lowercase."""
    match spec.get("normalizer"):
        case None:
            return lambda text: text
        case {"type": "NFC"} | {"type": "Sequence", "normalizers": [{"type": "NFC"}]}:
            return _nfc()
        case {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}:
            return _nfc_lowercase()
    return None


def _nfc() -> Normalize:
    # Not Python's `unicodedata`: it takes quadratic time for a run of combining marks, and
    # holds the GIL. 160 kB of them would block the server for 17 s.
    exact = tokenizers.normalizers.NFC()

    def normalize(text: str) -> str:
        return text if _COMPOSED.fullmatch(text) else str(exact.normalize_str(text))

    return normalize


def _nfc_lowercase() -> Normalize:
    # Python and Rust lower a few letters differently (final sigma), so Python lowers ASCII
    # only; other texts go through the library that made the tokenizer.
    exact = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.NFC(), tokenizers.normalizers.Lowercase()]
    )

    def normalize(text: str) -> str:
        return text.lower() if text.isascii() else str(exact.normalize_str(text))

    return normalize


def _byte_alphabet() -> dict[str, int]:
    """The byte for each character in the vocabulary of a byte-level BPE, as in GPT-2."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + index): byte for index, byte in enumerate(others)}
