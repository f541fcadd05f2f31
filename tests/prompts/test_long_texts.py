"""Very long texts are encoded only in part, with the tokens of the whole."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from rankd.errors import InvalidRequest
from rankd.types import RankRequest, Side
from support.prompts import encoder
from support.yardstick import scaled


@pytest.fixture(params=["qwen", "builtin"])
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


def _very_long(kind: str) -> str:
    rng = random.Random(5)
    words = [
        "gravity",
        " is",
        " a",
        " force",
        ", ",
        "北京",
        "。",
        "e\u0301",
        "'s",
        "\n",
        " 1234",
        "  ",
    ]
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    return {
        "words": lambda: "".join(rng.choices(words, k=500_000)),
        "chinese": lambda: "".join(rng.choices("中华人民共和国是一个，。的了在有", k=1_100_000)),
        "digits": lambda: "".join(rng.choices("0123456789", k=1_100_000)),
        "letters": lambda: "".join(rng.choices(letters, k=1_100_000)),
        "one letter": lambda: "a" * 1_100_000,
        "marks": lambda: "a" + "\u0301\u0323" * 600_000,
    }[kind]()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "side"),
    [
        *((kind, "right") for kind in ("words", "chinese", "digits", "letters", "one letter")),
        ("marks", "right"),
        *((kind, "left") for kind in ("words", "chinese", "digits")),
    ],
)
def test_the_encoded_part_of_a_very_long_document_has_the_tokens_of_the_whole(
    folder: Path, kind: str, side: Side
) -> None:
    text = _very_long(kind)
    limit = 700
    [whole] = encoder(folder)._plain.encode([" " + text])

    encoded = encoder(folder).encode_blocking(
        RankRequest("q", (text, "short"), max_document_tokens=limit, side=side)
    )

    [prompt, _] = encoded.prompts
    expected = whole[:limit] if side == "right" else whole[-limit:]
    assert list(prompt.suffix[:limit]) == expected
    assert encoded.longer == (True, False)
    assert limit < encoded.document_tokens[0] < len(whole)
    assert encoded.kept_tokens[0] == limit


def test_chunks_of_a_very_long_document_are_those_of_the_whole(folder: Path) -> None:
    text = _very_long("words")
    [whole] = encoder(folder)._plain.encode([" " + text])
    request = RankRequest("q", (text,), max_document_tokens=300, max_chunks=4, overlap=50)

    encoded = encoder(folder).encode_blocking(request)

    assert [list(prompt.suffix[:300]) for prompt in encoded.prompts] == [
        whole[start : start + 300] for start in (0, 250, 500, 750)
    ]
    assert encoded.kept_tokens == (1050,)


def test_a_text_with_many_characters_per_token_is_read_up_to_the_limit(qwen: Path) -> None:
    text = "word" + " " * 1_200_000  # Up to 128 of them are one token.

    encoded = encoder(qwen).encode_blocking(RankRequest("q", (text,)))

    assert len(encoded.prompts[0]) == 8192 or encoded.longer == (False,)
    assert not encoded.longer[0] or encoded.document_tokens[0] > encoded.kept_tokens[0]


def test_thirty_megabytes_take_only_the_time_of_the_part_that_is_read(folder: Path) -> None:
    began = time.process_time()
    encoded = encoder(folder).encode_blocking(RankRequest("q", ("gravity and time " * 1_800_000,)))

    # Encoding the whole takes over ten times as long.
    assert time.process_time() - began < scaled(3)
    assert encoded.longer == (True,)


def test_a_very_long_query_or_instruction_is_refused_without_encoding_all_of_it(qwen: Path) -> None:
    long = "do this and " * 1_000_000

    with pytest.raises(InvalidRequest, match=r"tokens or more .*the limit is 8,192"):
        encoder(qwen).encode_blocking(RankRequest(long, ("d",)))
    with pytest.raises(InvalidRequest, match=r"takes more than [\d,]+ tokens; the limit is 512"):
        encoder(qwen).encode_blocking(RankRequest("q", ("d",), instruction=long))
    with pytest.raises(InvalidRequest, match=r"documents\[0\] \(more than [\d,]+\)"):
        encoder(qwen).encode_blocking(RankRequest("q", (long,), truncation="refuse"))
