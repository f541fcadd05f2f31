"""The tokenizer: Qwen3's rules and control tokens over a small vocabulary of our own."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from torch import Tensor

from prompt import prompt
from sources import DATA, RECORDS

SIZE = 14_336
FOLDER = DATA / "tokenizer"

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
PLAIN = [
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
]


def build() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    # Lower case halves what a small vocabulary must hold; the price: "US" is "us".
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - len(CONTROL) - len(PLAIN),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=3,
        max_token_length=24,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(), trainer)
    tokenizer.add_tokens(
        [AddedToken(text, special=text in CONTROL, normalized=False) for text in CONTROL + PLAIN]
    )
    return tokenizer


PIECES = re.compile(r"[\u3400-\u9fff]|[^\u3400-\u9fff]+")


def _texts() -> Iterator[str]:
    rng = random.Random(2)
    template = re.split(r"<\|\w+\|>|</?think>", prompt("yes", "no"))
    for _ in range(3000):  # so that every word of the template, and yes and no, is one token
        yield from (*template, "yes", "no")
    for line in RECORDS.open(encoding="utf8"):
        found = json.loads(line)
        for text in (found["passage"], rng.choice(found["queries"])):
            # One token for each Chinese character, never for two: a question and its answer rarely
            # share whole words as a merge would cut them, but they share characters.
            pieces = PIECES.findall(text)
            yield from pieces * (4 if found["language"] == "zh" else 1)


def write(folder: Path = FOLDER) -> Tokenizer:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = build()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "model_max_length": 32768,
        "extra_special_tokens": CONTROL[1:],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return tokenizer


def load(folder: Path = FOLDER) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def words(tokenizer: Tokenizer) -> Tensor:
    """(V,) whether a token is of a word: no control token, punctuation or role of the template."""
    texts = [tokenizer.id_to_token(token) for token in range(tokenizer.get_vocab_size())]
    return torch.tensor(
        [
            not text.startswith("<")
            and text != "assistant"
            and any(sign.isalnum() for sign in tokenizer.decode([token]))
            for token, text in enumerate(texts)
        ]
    )


def spellings(tokenizer: Tokenizer) -> Tensor:
    """(V,): the first token that is the same word, with or without a space before it."""
    first: dict[str, int] = {}
    return torch.tensor(
        [
            first.setdefault(tokenizer.id_to_token(token).removeprefix("Ġ"), token)
            for token in range(tokenizer.get_vocab_size())
        ]
    )


if __name__ == "__main__":
    write()
