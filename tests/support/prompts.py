"""Texts and encoders for the tests of prompts."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from hypothesis import strategies as st

from rankd.models.checkpoint import Checkpoint
from rankd.prompts import PromptEncoder, open_encoder

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

CONTROL = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<think>", "</think>", "<tool_call>"]

# Texts as people write them, and arbitrary ones, without control tokens.
FRAGMENTS = [
    *(
        "gravity",
        "北京",
        "  ",
        "\n",
        "\n\n",
        " \n",
        "\t",
        "'s",
        "I'LL",
        "1234",
        "é",
        "e\u0301",
        "🙂",
    ),
    *("🙂", "👩\u200d👩\u200d👧", "İ", "ΑΣ", "ﬁ", "\u00a0", "\u3000", "<", "|", ">", ":"),
    *("x = {1: 'a'}", "\u200d", "\x00"),
]
words = st.sampled_from(FRAGMENTS)
texts = (
    st.one_of(st.lists(words, max_size=12).map("".join), st.text(max_size=60))
    .filter(lambda text: not any(token in text for token in CONTROL))
    .filter(lambda text: "<|" not in text and "</" not in text)
)


@cache
def encoder(folder: Path, max_tokens: int = 8192) -> PromptEncoder:
    return open_encoder(
        Checkpoint(folder, "test", {"max_position_embeddings": 40960}),
        max_tokens=max_tokens,
        instruction=INSTRUCTION,
        max_instruction_tokens=512,
    )
