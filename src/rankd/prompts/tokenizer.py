"""Text becomes token ids, and control tokens in it stay text.

A checkpoint's tokenizer reads `<|im_end|>` in a document as the end of the user's
turn, so a document could finish the prompt and answer itself. Here the words of
users go through the byte-pair encoding alone, which knows no control tokens; only
our own template may hold them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import orjson
import tiktoken
import tokenizers

from rankd.errors import BadModel
from rankd.prompts.offsets import Origins, Span, characters_of, whole_letters

Normalize = Callable[[str], str]

# tiktoken's regular expressions overflow their stack on a run of some 600,000 white
# characters. No model reads that many, so a longer run is cut to this.
_LONGEST_BLANK = 400_000


class TextEncoder(Protocol):
    """Encodes text as text: no string in it becomes a control token."""

    def encode(self, texts: Sequence[str]) -> list[list[int]]: ...

    def decode(self, ids: Sequence[int]) -> list[str]:
        """Each id as text; half a character becomes a replacement character."""
        ...

    def min_tokens(self, text: str) -> int:
        """Tokens that a text has at least, from its length alone."""
        ...

    def places(self, text: str, ids: Sequence[int], parts: Sequence[Span]) -> list[Span]:
        """Where parts of a text's tokens stand in it; what a border divides is in both parts.

        Args:
            ids: all of the text's tokens, or the first of them.
        """
        ...


class BytePairEncoder:
    """`tiktoken` on the checkpoint's own vocabulary: the same ids, five times as fast."""

    def __init__(self, encoding: tiktoken.Encoding, normalize: Normalize) -> None:
        self._encode = encoding.encode_ordinary
        self._spell = encoding.decode_single_token_bytes
        self._spell_all = encoding.decode_bytes
        self._normalize = normalize
        self._longest = max(map(len, encoding.token_byte_values()))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._encode(self._normalize(_short_blanks(text))) for text in texts]

    def decode(self, ids: Sequence[int]) -> list[str]:
        return [self._spell(one).decode(errors="replace") for one in ids]

    def min_tokens(self, text: str) -> int:
        # Up to four characters, such as a letter and its accents, are composed to one.
        return min(len(text), _LONGEST_BLANK) // (self._longest * (1 if text.isascii() else 4))

    def places(self, text: str, ids: Sequence[int], parts: Sequence[Span]) -> list[Span]:
        def spelled(start: int, end: int) -> bytes:
            return self._spell_all(ids[start:end])

        short = _short_blanks(text)
        places = characters_of(parts, spelled)
        if not short.isascii() and self._normalize(short) != short:
            origins = Origins(short, self._normalize)
            places = [origins.of(place) for place in places]
        return places if len(short) == len(text) else _among_blanks(text, places)


class GeneralEncoder:
    """Hugging Face `tokenizers`, for a tokenizer that is no plain byte-pair encoding."""

    def __init__(self, spec: dict[str, Any]) -> None:
        # Without its added tokens it cannot recognise one, "special" or not.
        plain = spec | {"added_tokens": [], "post_processor": None}
        plain |= {"truncation": None, "padding": None}
        self._tokenizer = tokenizers.Tokenizer.from_str(orjson.dumps(plain).decode())

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        batch = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in batch]

    def decode(self, ids: Sequence[int]) -> list[str]:
        return [self._tokenizer.decode([one], skip_special_tokens=False) for one in ids]

    def min_tokens(self, text: str) -> int:
        return 0  # A word that is not in the vocabulary may be one token, however long.

    def places(self, text: str, ids: Sequence[int], parts: Sequence[Span]) -> list[Span]:
        # Only here, because it takes longer than the ids alone.
        found = self._tokenizer.encode(text, add_special_tokens=False).offsets
        places = [
            Span(found[start][0], found[end - 1][1]) if start < end else Span(0, 0)
            for start, end in parts
        ]
        return [whole_letters(text, place) for place in places]


class Tokenizer:
    """A checkpoint's tokenizer in two manners: for our words and for everyone else's.

    Attributes:
        size: one more than the largest id it can give.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.plain = text_encoder(spec)
        self._control = {token["content"]: token["id"] for token in spec["added_tokens"]}
        self.size = 1 + max([*spec["model"]["vocab"].values(), *self._control.values()])
        longest_first = sorted(self._control, key=len, reverse=True)
        self._splitter = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def encode_template(self, text: str) -> list[int]:
        """Encode text of our own, in which control tokens are control tokens."""
        ids: list[int] = []
        for piece in self._splitter.split(text) if self._control else [text]:
            if piece in self._control:
                ids.append(self._control[piece])
            elif piece:
                ids += self.plain.encode([piece])[0]
        return ids

    def single(self, word: str) -> int:
        """The one id of a word that must be a single token."""
        ids = self.plain.encode([word])[0]
        if len(ids) != 1:
            raise BadModel(f"the tokenizer splits {word!r} into {len(ids)} tokens: no reranker's")
        return ids[0]


def text_encoder(spec: dict[str, Any]) -> TextEncoder:
    """The fastest encoder that gives exactly the ids of this `tokenizer.json`."""
    encoding = _byte_pair_encoding(spec)
    normalize = _normalizer(spec.get("normalizer"))
    if encoding is None or normalize is None:
        return GeneralEncoder(spec)
    return BytePairEncoder(encoding, normalize)


def _short_blanks(text: str) -> str:
    if len(text) <= _LONGEST_BLANK:
        return text
    return re.sub(r"\s+", lambda run: run.group()[:_LONGEST_BLANK], text)


def _among_blanks(text: str, places: Sequence[Span]) -> list[Span]:
    """Places in a text whose runs were cut short, in the whole text."""
    left_out = 0
    borders = []  # Behind each run that was cut: its place in the short text, and what is missing.
    # Every run is looked at: a pattern that only fits long ones is quadratic in almost long ones.
    for run in re.finditer(r"\s+", text):
        more = run.end() - run.start() - _LONGEST_BLANK
        if more > 0:
            border = run.start() - left_out + _LONGEST_BLANK
            left_out += more
            borders.append((border, left_out))

    def moved(position: int) -> int:
        return position + max((count for border, count in borders if border <= position), default=0)

    return [Span(moved(place.start), moved(place.end)) for place in places]


def _byte_pair_encoding(spec: dict[str, Any]) -> tiktoken.Encoding | None:
    """The vocabulary as `tiktoken` takes it, or None when that would change an id."""
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
        "checkpoint", pat_str=pattern, mergeable_ranks=ranks, special_tokens={}
    )


def _merges_follow_ids(model: dict[str, Any]) -> bool:
    """Whether the order of merges is the order of ids, which is all that tiktoken knows."""
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
    """The regular expression of `Split(regex, isolated)` + `ByteLevel`, else None."""
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


def _normalizer(spec: dict[str, Any] | None) -> Normalize | None:
    """The checkpoint's normalizer as a function, or None when it is not one we know."""
    match spec:
        case None:
            return lambda text: text
        case {"type": "NFC"} | {"type": "Sequence", "normalizers": [{"type": "NFC"}]}:
            return _composed()
        case {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}:
            return _lower_case()
    return None


def _composed() -> Normalize:
    # Not Python's `unicodedata`, whose time is quadratic in a run of combining marks and
    # holds the interpreter's lock: 160 kB of them would freeze the server for 17 s.
    exact = tokenizers.normalizers.NFC()

    def normalize(text: str) -> str:
        return text if text.isascii() else str(exact.normalize_str(text))

    return normalize


def _lower_case() -> Normalize:
    # Python and Rust disagree on a few letters (a final sigma), so only what is plain
    # ASCII is lowered here; the library that made the tokenizer does the rest.
    exact = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.NFC(), tokenizers.normalizers.Lowercase()]
    )

    def normalize(text: str) -> str:
        return text.lower() if text.isascii() else str(exact.normalize_str(text))

    return normalize


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes, as every byte-level BPE spells them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + place): byte for place, byte in enumerate(hidden)}
