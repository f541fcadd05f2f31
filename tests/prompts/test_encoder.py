"""Promise 1 and 2: the reference's prompt, id by id, and no control token from outside."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from rankd.errors import InvalidRequest, TooLarge
from rankd.models.checkpoint import Checkpoint
from rankd.prompts import PromptEncoder, open_encoder
from rankd.types import Prompt, RankRequest, Side, Truncation, TruncationPolicy

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

# From the model card's transformers example, typed in again rather than imported.
CARD_PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
    'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
CARD_SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
CARD_QUERIES = ["What is the capital of China?", "Explain gravity"]
CARD_DOCUMENTS = [
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other. It gives weight to "
    "physical objects and is responsible for the movement of planets around the sun.",
]
CONTROL = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<think>", "</think>", "<tool_call>"]

# Texts as people write them, and any text at all; no control tokens.
PIECES = [
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
words = st.sampled_from(PIECES)
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


@cache
def reference(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def card_pair(instruction: str, query: str, document: str) -> str:
    return f"<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"


def reference_ids(folder: Path, pair: str) -> list[int]:
    """The card's way: prefix, pair and suffix encoded apart, then joined."""
    encode = reference(folder).encode
    parts = (CARD_PREFIX, pair, CARD_SUFFIX)
    return [id for part in parts for id in encode(part, add_special_tokens=False)]


def prompt_ids(folder: Path, ask: RankRequest) -> list[list[int]]:
    encoded = encoder(folder).encode_blocking(ask)
    return [[*prompt.prefix, *prompt.suffix] for prompt in encoded.prompts]


@pytest.fixture(params=["qwen", "builtin"])
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


def test_the_model_cards_documents_with_one_query_have_193_tokens(qwen: Path) -> None:
    prompts = prompt_ids(qwen, RankRequest(CARD_QUERIES[0], tuple(CARD_DOCUMENTS)))

    assert sum(map(len, prompts)) == 193


@pytest.mark.parametrize("place", [0, 1])
def test_the_model_cards_pairs_have_the_reference_ids(folder: Path, place: int) -> None:
    query, document = CARD_QUERIES[place], CARD_DOCUMENTS[place]

    [ours] = prompt_ids(folder, RankRequest(query, (document,)))

    assert ours == reference_ids(folder, card_pair(INSTRUCTION, query, document))


def test_the_prompt_ends_with_two_newlines_after_the_think_block(qwen: Path) -> None:
    [prompt] = prompt_ids(qwen, RankRequest("q", ("d",)))

    assert prompt[-2:] == [151668, 271]


def test_yes_and_no_are_the_reference_ids(qwen: Path) -> None:
    assert encoder(qwen).answers == (9693, 2152)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(instruction=texts, query=texts, document=texts)
def test_ids_are_those_of_the_whole_string(
    folder: Path, instruction: str, query: str, document: str
) -> None:
    pair = card_pair(instruction, query, document)
    whole = reference(folder).encode(CARD_PREFIX + pair + CARD_SUFFIX, add_special_tokens=False)

    [ours] = prompt_ids(folder, RankRequest(query, (document,), instruction=instruction))

    assert ours == whole
    assert ours == reference_ids(folder, pair)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(query=texts, document=texts, control=st.sampled_from(CONTROL))
def test_a_control_token_in_the_text_of_a_user_is_plain_text(
    folder: Path, query: str, document: str, control: str
) -> None:
    ids = set(reference(folder).added_tokens_decoder)
    spoken = encoder(folder).encode_blocking(
        RankRequest(query + control, (control + document, document))
    )
    silent = encoder(folder).encode_blocking(RankRequest("q", ("d", "d")))

    for one, other in zip(spoken.prompts, silent.prompts, strict=True):
        ours = [id for id in (*one.prefix, *one.suffix) if id in ids]
        template = [id for id in (*other.prefix, *other.suffix) if id in ids]
        assert ours == template


def test_a_control_token_keeps_its_characters(folder: Path) -> None:
    [prompt] = (
        encoder(folder).encode_blocking(RankRequest("q", ("a <|im_end|> <think> b",))).prompts
    )

    text = reference(folder).decode(prompt.suffix, skip_special_tokens=False)

    assert text.startswith(" a <|im_end|> <think> b<|im_end|>\n")


def test_documents_of_one_request_share_one_prefix_object(folder: Path) -> None:
    prompts = encoder(folder).encode_blocking(RankRequest("q", ("a", "b", "c"))).prompts

    assert prompts[0].prefix is prompts[1].prefix is prompts[2].prefix


def test_only_the_document_is_truncated(folder: Path) -> None:
    long = "word and more " * 500
    whole = encoder(folder).encode_blocking(RankRequest("q", (long, "short")))
    cut = encoder(folder, max_tokens=300).encode_blocking(RankRequest("q", (long, "short")))

    suffix = whole.prompts[0].suffix[-9:]
    assert len(cut.prompts[0]) == 300
    assert cut.prompts[0].prefix == whole.prompts[0].prefix
    assert cut.prompts[0].suffix[-9:] == suffix
    kept = cut.kept_tokens[0]
    assert cut.prompts[0].suffix[:kept] == whole.prompts[0].suffix[:kept]
    assert cut.document_tokens == whole.document_tokens == whole.kept_tokens
    assert cut.prompts[1] == whole.prompts[1]


def test_a_request_can_ask_for_shorter_documents(folder: Path) -> None:
    encoded = encoder(folder).encode_blocking(
        RankRequest("q", ("one two three four",), max_document_tokens=2)
    )

    assert encoded.kept_tokens == (2,)
    assert encoded.document_tokens[0] > 2


def test_a_query_that_leaves_no_room_is_refused_with_the_numbers(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"take [\d,]+ tokens.*the limit is 300") as refusal:
        encoder(folder, max_tokens=300).encode_blocking(RankRequest("why? " * 400, ("d",)))

    assert refusal.value.param == "query"


def test_an_instruction_has_its_own_limit(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match="the limit is 512"):
        encoder(folder).encode_blocking(RankRequest("q", ("d",), instruction="do this, " * 400))


def test_hostile_texts_are_encoded(folder: Path) -> None:
    marks = "a" + "\u0301" * 40_000 + "\u0323" * 40_000  # Quadratic in Python's own NFC.
    hostile = (marks, " " * 1_500_000, "\n" * 1_500_000, "a" * 300_000, "", "\x00")

    encoded = encoder(folder).encode_blocking(RankRequest("q", hostile))

    assert max(map(len, encoded.prompts)) <= 8192


@pytest.mark.parametrize(("limit", "overlap"), [(1, 0), (7, 0), (7, 3), (10, 9), (10, 50), (99, 0)])
def test_chunks_cover_every_token_and_overlap_as_requested(
    folder: Path, limit: int, overlap: int
) -> None:
    text = " ".join(f"word{number}" for number in range(12))
    ask = RankRequest(
        "q", (text, "short"), max_document_tokens=limit, max_chunks=999, overlap=overlap
    )

    encoded = encoder(folder).encode_blocking(ask)
    whole = encoder(folder).encode_blocking(RankRequest("q", (text, "short")))

    def body(prompt: Prompt) -> list[int]:
        return list(prompt.suffix[: len(prompt.suffix) - suffix])

    suffix = len(whole.prompts[1].suffix) - whole.document_tokens[1]
    count = encoded.chunks[0]
    pieces = [body(prompt) for prompt in encoded.prompts[:count]]
    step = max(limit - overlap, 1)
    joined = [one for piece in pieces[:-1] for one in piece[:step]] + pieces[-1]
    assert joined == body(whole.prompts[0])
    assert all(len(piece) <= limit for piece in pieces)
    assert encoded.kept_tokens == encoded.document_tokens == whole.document_tokens
    assert len(encoded.prompts) == sum(encoded.chunks)


def test_a_document_is_truncated_at_its_start_with_side_left(folder: Path) -> None:
    whole = (
        encoder(folder).encode_blocking(RankRequest("q", ("one two three four",))).prompts[0].suffix
    )
    cut = encoder(folder).encode_blocking(
        RankRequest("q", ("one two three four",), max_document_tokens=2, side="left")
    )

    assert cut.prompts[0].suffix == whole[2:]
    assert (cut.kept_tokens, cut.document_tokens) == ((2,), (4,))


def test_documents_that_must_not_be_truncated_are_refused_by_index_and_size(folder: Path) -> None:
    ask = RankRequest("q", ("one", "one two three"), max_document_tokens=2, truncation="refuse")

    with pytest.raises(InvalidRequest, match=r"1 of 2 documents exceed 2 .*: documents\[1\] \(3\)"):
        encoder(folder).encode_blocking(ask)


def _very_long(sort: str) -> str:
    chance = random.Random(5)
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
        "words": lambda: "".join(chance.choices(words, k=500_000)),
        "chinese": lambda: "".join(chance.choices("中华人民共和国是一个，。的了在有", k=1_100_000)),
        "digits": lambda: "".join(chance.choices("0123456789", k=1_100_000)),
        "letters": lambda: "".join(chance.choices(letters, k=1_100_000)),
        "one letter": lambda: "a" * 1_100_000,
        "marks": lambda: "a" + "\u0301\u0323" * 600_000,
    }[sort]()


@pytest.mark.parametrize(
    ("sort", "side"),
    [
        *((sort, "right") for sort in ("words", "chinese", "digits", "letters", "one letter")),
        ("marks", "right"),
        *((sort, "left") for sort in ("words", "chinese", "digits")),
    ],
)
def test_the_encoded_part_of_a_very_long_document_has_the_tokens_of_the_whole(
    folder: Path, sort: str, side: Side
) -> None:
    text = _very_long(sort)
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
    ask = RankRequest("q", (text,), max_document_tokens=300, max_chunks=4, overlap=50)

    encoded = encoder(folder).encode_blocking(ask)

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

    assert time.process_time() - began < 3  # The whole takes more than ten times as long.
    assert encoded.longer == (True,)


def test_a_very_long_query_or_instruction_is_refused_without_encoding_all_of_it(qwen: Path) -> None:
    long = "do this and " * 1_000_000

    with pytest.raises(InvalidRequest, match=r"tokens or more .*the limit is 8,192"):
        encoder(qwen).encode_blocking(RankRequest(long, ("d",)))
    with pytest.raises(InvalidRequest, match=r"takes more than [\d,]+ tokens; the limit is 512"):
        encoder(qwen).encode_blocking(RankRequest("q", ("d",), instruction=long))
    with pytest.raises(InvalidRequest, match=r"documents\[0\] \(more than [\d,]+\)"):
        encoder(qwen).encode_blocking(RankRequest("q", (long,), truncation="refuse"))


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    documents=st.lists(st.one_of(texts, st.text(max_size=400)), min_size=1, max_size=6),
    limit=st.one_of(st.none(), st.integers(1, 40)),
    truncation=st.sampled_from(["cut", "chunk"]),
    side=st.sampled_from(["left", "right"]),
    chunks=st.one_of(st.none(), st.integers(1, 3)),
)
def test_the_lower_bound_is_never_above_the_number_of_tokens(
    folder: Path,
    documents: list[str],
    limit: int | None,
    truncation: Truncation,
    side: Side,
    chunks: int | None,
) -> None:
    ask = RankRequest("q", tuple(documents), None, limit, truncation, chunks, side=side)

    price = sum(map(len, set(encoder(folder).encode_blocking(ask).prompts)))

    assert encoder(folder).min_tokens([ask]) <= price


def test_the_lower_bound_counts_two_spellings_of_a_text_once(folder: Path) -> None:
    spellings = ("é" * 500, "e\u0301" * 500)

    both = encoder(folder).min_tokens([RankRequest("q", spellings)])

    assert both == max(encoder(folder).min_tokens([RankRequest("q", (one,))]) for one in spellings)


def test_the_lower_bound_counts_different_documents(folder: Path) -> None:
    alike = RankRequest("q", ("the same",) * 50)
    different = RankRequest("q", tuple(f"{number} document" for number in range(50)))
    long = RankRequest("q", ("word and more " * 10_000,))

    one, fifty, many = (encoder(folder).min_tokens([ask]) for ask in (alike, different, long))

    assert fifty == 50 * one
    assert many > 10 * one


@pytest.mark.parametrize("pattern", ["docs/*.md", "src/rankd/**/*.py", "configs/*.toml"])
def test_the_estimate_of_ordinary_texts_is_below_their_tokens_and_above_half(
    qwen: Path, pattern: str
) -> None:
    texts = [file.read_text() for file in Path(__file__).parents[2].glob(pattern)]
    parts = tuple({text[at : at + 800] for text in texts for at in range(0, len(text), 800)})
    ask = RankRequest("q", parts)

    price = sum(map(len, encoder(qwen).encode_blocking(ask).prompts))

    assert 0.5 * price < encoder(qwen).estimated_tokens([ask]) < price


@pytest.mark.parametrize(
    "text",
    [
        "Die Geschwindigkeit, mit der sich Donaudampfschifffahrtsgesellschaften ändern, ist klein.",
        "La réponse à cette question dépend de l'année, où l'on mesure les températures d'été.",
        "Скорость ответа зависит от того, сколько документов ожидает своей очереди на сервере.",
        "服务器一次只接受它能够处理的请求，其余的请求会被拒绝，并告知何时可以再试。",
    ],
)
def test_the_estimate_is_below_the_tokens_in_other_languages_too(qwen: Path, text: str) -> None:
    ask = RankRequest("q", (text * 5,))

    price = sum(map(len, encoder(qwen).encode_blocking(ask).prompts))

    assert encoder(qwen).estimated_tokens([ask]) < price


@pytest.mark.parametrize(
    "said",
    [
        {"truncation": "chunk"},
        {"truncation": "chunk", "max_chunks": 9},
        {"max_document_tokens": 100, "max_chunks": 9, "overlap": 40},
        {"truncation": "chunk", "max_document_tokens": 100, "overlap": 90},
        {"truncation": "cut", "max_document_tokens": 100},
        {},
    ],
)
def test_the_estimate_counts_every_chunk_and_its_overlap(qwen: Path, said: Any) -> None:
    files = [*(Path(__file__).parents[2] / "docs").glob("*.md")]
    ask = RankRequest("q", tuple(file.read_text() for file in files), **said)

    price = sum(map(len, encoder(qwen).encode_blocking(ask).prompts))

    assert 0.5 * price < encoder(qwen).estimated_tokens([ask]) <= price


def counted(encoded: Any, folder: Path) -> list[int]:
    """Tokens of the document in each prompt."""
    [bare] = encoder(folder).encode_blocking(RankRequest("q", ("",))).prompts
    suffix = len(bare.suffix) - len(encoder(folder)._plain.encode([" "])[0])
    return [len(prompt.suffix) - suffix for prompt in encoded.prompts]


WORDS = " ".join(f"word{number}" for number in range(6_000))


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_document_is_read_whole_in_chunks_of_the_default_size(folder: Path, side: Side) -> None:
    encoded = encoder(folder).encode_blocking(
        RankRequest("q", (WORDS, "short"), truncation="chunk", side=side)
    )

    lengths = counted(encoded, folder)
    assert set(lengths[1:-2]) == {512}
    assert encoded.kept_tokens == encoded.document_tokens
    assert sum(lengths[:-1]) - 64 * (encoded.chunks[0] - 1) == encoded.document_tokens[0]
    assert (lengths[0] < 512) == (side == "left")


def test_a_document_that_fits_is_not_split(folder: Path) -> None:
    encoded = encoder(folder).encode_blocking(
        RankRequest("q", ("word " * 5_000,), truncation="chunk")
    )

    assert encoded.chunks == (1,)


@pytest.mark.parametrize("most", [7, 20, 40])
def test_chunks_grow_until_the_requested_number_covers_the_document(
    folder: Path, most: int
) -> None:
    ask = RankRequest("q", (WORDS,), truncation="chunk", max_chunks=most)

    encoded = encoder(folder).encode_blocking(ask)

    assert encoded.chunks == (most,)
    assert encoded.kept_tokens == encoded.document_tokens
    assert max(counted(encoded, folder)) - min(counted(encoded, folder)) <= most + 64


def test_chunks_leave_out_tokens_on_the_requested_side(folder: Path) -> None:
    ask = RankRequest("q", (WORDS,), max_document_tokens=100, max_chunks=3)
    whole = encoder(folder, 40_000).encode_blocking(RankRequest("q", (WORDS,))).prompts[0].suffix

    right = encoder(folder).encode_blocking(ask).prompts
    left = encoder(folder).encode_blocking(replace(ask, side="left")).prompts

    suffix = right[0].suffix[100:]
    body = whole[: -len(suffix)]
    assert [prompt.suffix[:100] for prompt in right] == [body[:100], body[100:200], body[200:300]]
    assert [prompt.suffix[:100] for prompt in left] == [
        body[-300:-200],
        body[-200:-100],
        body[-100:],
    ]


@pytest.mark.parametrize(
    ("ask", "pieces"),
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
    builtin: Path, ask: dict[str, Any], pieces: int
) -> None:
    server = open_encoder(
        Checkpoint(builtin, "test", {"max_position_embeddings": 40960}),
        max_tokens=110,
        instruction="i",
        max_instruction_tokens=512,
        fit=TruncationPolicy(truncation="chunk", side="left"),
        chunk_tokens=20,
        chunk_overlap=0,
    )
    text = " ".join(["word"] * 60 + ["end"])

    encoded = server.encode_blocking(RankRequest("q", (text,), **ask))

    assert encoded.chunks == (pieces,)
    assert encoded.prompts[-1].suffix[-10] == server._plain.encode([" end"])[0][0]


def test_chunks_are_counted_before_they_are_made(builtin: Path) -> None:
    text = "word " * 150_000

    began = time.process_time()
    with pytest.raises(TooLarge, match=r"the documents make 149,[\d,]+ chunks; .* 10,000: lower"):
        encoder(builtin).encode_blocking(
            RankRequest("q", (text,), max_document_tokens=1_000, max_chunks=10**9, overlap=999)
        )
    with pytest.raises(TooLarge, match=r"hold 56,[\d,]+ tokens; the limit is 16,000,000") as much:
        encoder(builtin).encode_blocking(
            RankRequest("q", (text,), max_document_tokens=7_000, max_chunks=8_000, overlap=6_990)
        )

    assert much.value.param == "overlap_tokens"
    assert time.process_time() - began < 10


def test_chunks_of_a_very_long_text_are_not_all_encoded(builtin: Path) -> None:
    long = "gravity and time " * 1_800_000

    began = time.process_time()
    with pytest.raises(TooLarge, match="the limit is 10,000"):
        encoder(builtin).encode_blocking(
            RankRequest("q", (long,), max_document_tokens=10, truncation="chunk")
        )

    assert time.process_time() - began < 3


@pytest.mark.parametrize("query", ["why? " * 90, "why?" * 95])
def test_a_query_of_more_than_half_a_prompt_is_refused_with_the_numbers(
    folder: Path, query: str
) -> None:
    small = encoder(folder, max_tokens=300)
    [ids] = small._plain.encode([query])

    with pytest.raises(InvalidRequest) as refusal:
        small.encode_blocking(RankRequest(query, ("d",)))

    assert refusal.value.param == "query"
    assert refusal.value.message == (
        f"the query takes {len(ids):,} tokens; the limit is 150, half of the 300 that the model "
        "reads at a time"
    )


def test_a_query_of_half_a_prompt_is_accepted_with_any_instruction(folder: Path) -> None:
    half = " ".join(["why"] * 150)
    small = encoder(folder, max_tokens=300)
    assert len(small._plain.encode([half])[0]) == 150

    [prompt] = small.encode_blocking(RankRequest(half, ("d",), instruction="do this " * 10)).prompts

    assert len(prompt) > 200
