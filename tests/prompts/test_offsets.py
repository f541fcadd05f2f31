"""Spans of chunks in documents: every character that was read, and hardly any other."""

from __future__ import annotations

import random
import time
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rankd.models.checkpoint import Checkpoint
from rankd.prompts import PromptEncoder, open_encoder
from rankd.prompts.offsets import Span
from rankd.prompts.text_encoders import BytePairEncoder, GeneralEncoder, text_encoder
from rankd.types import RankRequest, Side
from support.yardstick import scaled

# Letters that normalizers change, or that tokens divide.
FRAGMENTS = [
    *(
        "gravity ",
        "北京",
        "🙂",
        "👩\u200d👩\u200d👧",
        "e\u0301",
        "a\u0301\u0323",
        "a\u0323\u0301",
        "é",
    ),
    *("İ", "ΑΣ ", "ẞ", "ﬁ", "\u0958", "\u0344", "각", "\u1112\u1161\u11ab", "\u0bc6\u0bbe", "Å"),
    *("\u0301", "\u200d", "\x00", "  ", "\n", "\u3000", "𝔊", "\u1e9b\u0323", "q\u0307\u0323"),
]
texts = st.one_of(
    st.lists(st.sampled_from(FRAGMENTS), max_size=30).map("".join), st.text(max_size=80)
)


@pytest.fixture(params=["qwen", "builtin"])
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


@cache
def encoder(folder: Path, max_tokens: int = 8192) -> PromptEncoder:
    return open_encoder(
        Checkpoint(folder, "test", {"max_position_embeddings": 40960}),
        max_tokens=max_tokens,
        instruction="i",
        max_instruction_tokens=512,
    )


def chunks_of(folder: Path, text: str, **fields: Any) -> list[tuple[Span, bytes]]:
    """For each chunk of a document, its span and the bytes of its tokens."""
    encoded = encoder(folder).encode_blocking(RankRequest("q", (text,), details=True, **fields))
    [bare] = encoder(folder).encode_blocking(RankRequest("q", ("",))).prompts
    plain = encoder(folder)._plain
    assert isinstance(plain, BytePairEncoder)
    assert encoded.spans is not None
    suffix = len(bare.suffix) - len(plain.encode([" "])[0])
    read = (
        plain._bytes(prompt.suffix[: len(prompt.suffix) - suffix]) for prompt in encoded.prompts
    )
    return list(zip(encoded.spans, read, strict=True))


def normalized(folder: Path, text: str) -> str:
    plain = encoder(folder)._plain
    assert isinstance(plain, BytePairEncoder)
    return plain._normalize(text)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    text=texts,
    limit=st.integers(1, 9),
    overlap=st.integers(0, 9),
    side=st.sampled_from(["left", "right"]),
)
def test_a_span_contains_what_was_read(
    folder: Path, text: str, limit: int, overlap: int, side: Side
) -> None:
    options = {"max_document_tokens": limit, "overlap": overlap, "side": side}

    chunks = chunks_of(folder, text, truncation="chunk", **options)

    for (start, end), read in chunks:
        assert 0 <= start <= end <= len(text)
        # The bytes of a divided character are not text; the span contains all of it.
        characters = read.decode("utf-8", "ignore")
        assert characters in normalized(folder, " " + text[start:end])
    assert (chunks[0][0].start, chunks[-1][0].end) == (0, len(text))


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=texts, limit=st.integers(1, 9))
def test_a_span_contains_nothing_else(qwen: Path, text: str, limit: int) -> None:
    text = unicodedata.normalize("NFC", text)
    if normalized(qwen, " " + text) != " " + text:
        return  # Python and the tokenizer have different releases of Unicode.

    chunks = chunks_of(qwen, text, truncation="chunk", max_document_tokens=limit)

    for (start, end), read in chunks:
        lead = 1 if start == 0 and read.startswith(b" ") else 0
        # A divided character at either end has up to three bytes elsewhere.
        assert len(text[start:end].encode()) - (len(read) - lead) in range(7)


def test_spans_of_plain_words_are_exact(folder: Path) -> None:
    text = "The capital of China is Beijing. It lies in the north of the country."

    for (start, end), read in chunks_of(folder, text, truncation="chunk", max_document_tokens=4):
        assert text[start:end].lower() == read.decode().removeprefix(" ").lower() or (
            text[start:end].lower() == read.decode().lower()
        )


def test_an_emoji_that_two_chunks_divide_is_in_both(qwen: Path) -> None:
    text = "a 🫠🫠 b"

    chunks = chunks_of(qwen, text, truncation="chunk", max_document_tokens=1)

    divided = [
        read for _, read in chunks if b"\xef\xbf\xbd" in read.decode(errors="replace").encode()
    ]
    assert divided
    assert all("🫠" in text[start:end] for (start, end), read in chunks if read in divided)


def test_a_composed_letter_is_in_the_span_with_its_marks(folder: Path) -> None:
    text = "a\u0301\u0323" * 5  # Normalized, each is one composed letter with one mark.

    for (start, end), read in chunks_of(folder, text, truncation="chunk", max_document_tokens=1):
        assert start % 3 == end % 3 == 0
        assert end - start == (0 if read == b" " else 3)
        assert read.decode("utf-8", "ignore") in normalized(folder, " " + text[start:end])


def test_a_truncated_document_has_a_span_too(folder: Path) -> None:
    text = "one two three four five"

    [((start, end), _)] = chunks_of(folder, text, max_document_tokens=2)
    [((late, last), _)] = chunks_of(folder, text, max_document_tokens=2, side="left")
    [(whole, _)] = chunks_of(folder, text)

    assert text[start:end] == "one two"
    assert text[late:last] == " four five"
    assert whole == (0, len(text))


def test_there_are_no_spans_without_details(folder: Path) -> None:
    assert encoder(folder).encode_blocking(RankRequest("q", ("a", "b"))).spans is None


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("sort", ["words", "composed", "blanks"])
def test_spans_of_a_partially_encoded_text_are_those_of_the_whole(
    folder: Path, sort: str, side: Side
) -> None:
    rng = random.Random(7)
    fragments = {
        "words": ["gravity", " is", " a force", "北京", "。", "\n", " 1234"],
        "composed": ["gra", "vité ", "e\u0301 ", "ΑΣ ", "각", "🙂", "Å", " x"],
        "blanks": ["word "],
    }[sort]
    text = "".join(rng.choices(fragments, k=500_000))
    if sort == "blanks":
        text = text[:2_000] + " " * 900_000 + "." + " " * 900_000 + text[:2_000]
    options = {"max_document_tokens": 300, "overlap": 40, "side": side, "max_chunks": 4}

    encoded = encoder(folder).encode_blocking(RankRequest("q", (text,), details=True, **options))  # type: ignore[arg-type]
    chunks = chunks_of(folder, text, **options)

    assert encoded.longer == (True,) or sort == "blanks"
    assert len(chunks) == 4
    for (start, end), read in chunks:
        assert read.decode("utf-8", "ignore").strip() in normalized(folder, " " + text[start:end])
        assert end - start < 3 * len(read) or sort == "blanks"
    assert (chunks[0][0].start == 0) if side == "right" else (chunks[-1][0].end == len(text))


def test_a_shortened_run_of_blanks_counts_in_full(folder: Path) -> None:
    text = "first" + " " * 700_000 + "second" + "\n" * 500_000 + "third" + " " * 399_999 + "x"
    chunks = chunks_of(folder, text, truncation="chunk", max_document_tokens=2_000)

    [span] = [span for span, read in chunks if b"second" in read]

    assert "second" in text[span.start : span.end]
    assert text[chunks[-1][0].start : chunks[-1][0].end].endswith("x")


def test_both_encoders_give_the_same_spans(folder: Path) -> None:
    spec = orjson.loads((folder / "tokenizer.json").read_bytes())
    text = "The Größe of e\u0301 in 北京 is 🙂 and the rest"
    fast, general = text_encoder(spec), GeneralEncoder(spec)
    [ids] = fast.encode([text])
    parts = [Span(start, min(start + 3, len(ids))) for start in range(0, len(ids), 3)]

    assert isinstance(fast, BytePairEncoder)
    assert fast.character_spans(text, ids, parts) == general.character_spans(text, ids, parts)


def test_thousands_of_spans_among_combining_marks_are_fast(folder: Path) -> None:
    hostile = "e\u0301 " * 50_000 + "a" + "\u0301\u0323" * 200_000 + "Å" * 100_000
    request = RankRequest("q", (hostile,), max_document_tokens=60, max_chunks=9_000, details=True)

    began = time.process_time()
    encoded = encoder(folder).encode_blocking(request)

    assert len(encoded.prompts) > 5_000
    assert time.process_time() - began < scaled(10)
