"""A checkpoint's tokenizer, in two modes: control tokens count in the template only.

A checkpoint's own tokenizer reads `<|im_end|>` in a document as the end of the user's turn, so
a document could end the prompt and answer itself. Here texts of users go through the byte-pair
encoding alone, which has no control tokens.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from rankd.errors import BadModel
from rankd.models.checkpoint import Checkpoint
from rankd.prompts.text_encoders import text_encoder


class Tokenizer:
    """Encodes the template with control tokens, and everything else without.

    Attributes:
        plain: encodes the texts of users.
        control: token ids of the control tokens, by their text.
        size: the largest token id + 1.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        self.plain = text_encoder(spec)
        self.control = {token["content"]: token["id"] for token in spec["added_tokens"]}
        self.size = 1 + max([*spec["model"]["vocab"].values(), *self.control.values()])
        longest_first = sorted(self.control, key=len, reverse=True)
        self._splitter = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def encode_template(self, text: str) -> list[int]:
        """The token ids of the template's text, in which control tokens are control tokens."""
        ids: list[int] = []
        for part in self.split(text):
            if part in self.control:
                ids.append(self.control[part])
            else:
                ids += self.plain.encode([part])[0]
        return ids

    def split(self, text: str) -> list[str]:
        """The control tokens and the texts between them, in order; none is empty."""
        return [part for part in self._splitter.split(text) if part] if self.control else [text]

    def single(self, word: str) -> int:
        """The token id of a word.

        Raises:
            BadModel: the word is not a single token.
        """
        ids = self.plain.encode([word])[0]
        if len(ids) != 1:
            raise BadModel(
                f"the tokenizer splits {word!r} into {len(ids)} tokens, so it is not a reranker's"
            )
        return ids[0]


def open_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer in a checkpoint's `tokenizer.json`.

    Raises:
        BadModel: the file cannot be read, or has more tokens than the model.
    """
    file = checkpoint.path / "tokenizer.json"
    try:
        tokenizer = Tokenizer(orjson.loads(file.read_bytes()))
    except BadModel:
        raise
    except Exception as problem:  # The tokenizers library raises plain `Exception`.
        raise BadModel(f"{file} is not a usable tokenizer: {problem!r}") from None
    rows = checkpoint.config.get("vocab_size", tokenizer.size)
    if tokenizer.size > rows:
        # Otherwise a rare word in a document would crash the engine.
        raise BadModel(f"{file} has {tokenizer.size:,} tokens; the model has rows for {rows:,}")
    return tokenizer
