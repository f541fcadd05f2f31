"""Documents that do not fit: sizes, numbers and overlap of chunks."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rankd.errors import TooLarge
from rankd.models.checkpoint import Checkpoint
from rankd.prompts import open_encoder
from rankd.types import Prompt, RankRequest, Side, TruncationPolicy
from support.prompts import encoder
from support.yardstick import scaled


@pytest.fixture(params=["qwen", "builtin"])
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


def chunk_lengths(encoded: Any, folder: Path) -> list[int]:
    """For each prompt, its tokens of the document."""
    [bare] = encoder(folder).encode_blocking(RankRequest("q", ("",))).prompts
    suffix = len(bare.suffix) - len(encoder(folder)._plain.encode([" "])[0])
    return [len(prompt.suffix) - suffix for prompt in encoded.prompts]


WORDS = " ".join(f"word{number}" for number in range(6_000))


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_document_is_read_whole_in_chunks_of_the_default_size(folder: Path, side: Side) -> None:
    encoded = encoder(folder).encode_blocking(
        RankRequest("q", (WORDS, "short"), truncation="chunk", side=side)
    )

    lengths = chunk_lengths(encoded, folder)
    assert set(lengths[1:-2]) == {512}
    assert encoded.kept_tokens == encoded.document_tokens
    assert sum(lengths[:-1]) - 64 * (encoded.chunks[0] - 1) == encoded.document_tokens[0]
    assert (lengths[0] < 512) == (side == "left")


def test_a_document_that_fits_is_not_split(folder: Path) -> None:
    encoded = encoder(folder).encode_blocking(
        RankRequest("q", ("word " * 5_000,), truncation="chunk")
    )

    assert encoded.chunks == (1,)


@pytest.mark.parametrize("count", [7, 20, 40])
def test_chunks_grow_until_the_requested_number_covers_the_document(
    folder: Path, count: int
) -> None:
    request = RankRequest("q", (WORDS,), truncation="chunk", max_chunks=count)

    encoded = encoder(folder).encode_blocking(request)

    assert encoded.chunks == (count,)
    assert encoded.kept_tokens == encoded.document_tokens
    assert max(chunk_lengths(encoded, folder)) - min(chunk_lengths(encoded, folder)) <= count + 64


def test_chunks_leave_out_tokens_on_the_requested_side(folder: Path) -> None:
    request = RankRequest("q", (WORDS,), max_document_tokens=100, max_chunks=3)
    whole = encoder(folder, 40_000).encode_blocking(RankRequest("q", (WORDS,))).prompts[0].suffix

    right = encoder(folder).encode_blocking(request).prompts
    left = encoder(folder).encode_blocking(replace(request, side="left")).prompts

    suffix = right[0].suffix[100:]
    body = whole[: -len(suffix)]
    assert [prompt.suffix[:100] for prompt in right] == [body[:100], body[100:200], body[200:300]]
    assert [prompt.suffix[:100] for prompt in left] == [
        body[-300:-200],
        body[-200:-100],
        body[-100:],
    ]


@pytest.mark.parametrize(
    ("fields", "chunks"),
    [
        ({}, 4),
        ({"truncation": "cut"}, 1),
        ({"truncation": "cut", "max_chunks": 9}, 1),
        ({"max_chunks": 1}, 1),
        ({"max_chunks": 2}, 2),
        ({"overlap": 10}, 6),
    ],
)
def test_the_policy_of_the_server_applies_unless_the_request_overrides_it(
    builtin: Path, fields: dict[str, Any], chunks: int
) -> None:
    server = open_encoder(
        Checkpoint(builtin, "test", {"max_position_embeddings": 40960}),
        max_tokens=110,
        instruction="i",
        max_instruction_tokens=512,
        truncation_policy=TruncationPolicy(truncation="chunk", side="left"),
        chunk_tokens=20,
        chunk_overlap=0,
    )
    text = " ".join(["word"] * 60 + ["end"])

    encoded = server.encode_blocking(RankRequest("q", (text,), **fields))

    assert encoded.chunks == (chunks,)
    assert encoded.prompts[-1].suffix[-10] == server._plain.encode([" end"])[0][0]


def test_chunks_are_counted_before_they_are_made(builtin: Path) -> None:
    text = "word " * 150_000

    began = time.process_time()
    with pytest.raises(TooLarge, match=r"the documents make 149,[\d,]+ chunks; .* 10,000: lower"):
        encoder(builtin).encode_blocking(
            RankRequest("q", (text,), max_document_tokens=1_000, max_chunks=10**9, overlap=999)
        )
    with pytest.raises(
        TooLarge, match=r"hold 56,[\d,]+ tokens; the limit is 16,000,000"
    ) as refusal:
        encoder(builtin).encode_blocking(
            RankRequest("q", (text,), max_document_tokens=7_000, max_chunks=8_000, overlap=6_990)
        )

    assert refusal.value.param == "overlap_tokens"
    assert time.process_time() - began < scaled(10)


def test_chunks_of_a_very_long_text_are_not_all_encoded(builtin: Path) -> None:
    long = "gravity and time " * 1_800_000

    began = time.process_time()
    with pytest.raises(TooLarge, match="the limit is 10,000"):
        encoder(builtin).encode_blocking(
            RankRequest("q", (long,), max_document_tokens=10, truncation="chunk")
        )

    assert time.process_time() - began < scaled(3)


@pytest.mark.parametrize(("limit", "overlap"), [(1, 0), (7, 0), (7, 3), (10, 9), (10, 50), (99, 0)])
def test_chunks_cover_every_token_and_overlap_as_requested(
    folder: Path, limit: int, overlap: int
) -> None:
    text = " ".join(f"word{number}" for number in range(12))
    request = RankRequest(
        "q", (text, "short"), max_document_tokens=limit, max_chunks=999, overlap=overlap
    )

    encoded = encoder(folder).encode_blocking(request)
    whole = encoder(folder).encode_blocking(RankRequest("q", (text, "short")))

    def body(prompt: Prompt) -> list[int]:
        return list(prompt.suffix[: len(prompt.suffix) - suffix])

    suffix = len(whole.prompts[1].suffix) - whole.document_tokens[1]
    count = encoded.chunks[0]
    chunks = [body(prompt) for prompt in encoded.prompts[:count]]
    step = max(limit - overlap, 1)
    joined = [token for chunk in chunks[:-1] for token in chunk[:step]] + chunks[-1]
    assert joined == body(whole.prompts[0])
    assert all(len(chunk) <= limit for chunk in chunks)
    assert encoded.kept_tokens == encoded.document_tokens == whole.document_tokens
    assert len(encoded.prompts) == sum(encoded.chunks)
