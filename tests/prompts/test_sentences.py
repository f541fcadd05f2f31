"""Sentences: where texts are split, offsets, and texts that are made to be slow."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankd.errors import InvalidRequest
from rankd.prompts import sentences as module
from rankd.prompts.sentences import MAX_CHARACTERS, sentences


def texts(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


@pytest.mark.parametrize(
    "expected",
    [
        # Abbreviations and initials.
        [
            "Dr. Smith met Mr. Jones at 5 p.m. in Washington, D.C. on Jan. 3.",
            "They left, e.g. by car.",
        ],
        ["It was U.S. policy.", "Prof. Lee et al. agree."],
        # Decimals, versions, addresses.
        ["The price rose 3.14 percent.", "Version 2.0.1 is out.", "See example.com today."],
        # Quotes and parentheses.
        ['He said "Stop. Go away."', "Then he left."],
        ["“Really?” she asked.", "So what?!"],
        ["Well... maybe.", "Yes!"],
        ["iPhone is good.", "iPad too."],
        # Mixed scripts.
        ["It is fast.", "速度很快！", "OK?"],
    ],
)
def test_english_is_split_at_sentences(expected: list[str]) -> None:
    assert texts(" ".join(expected)) == expected


@pytest.mark.parametrize(
    "expected",
    [
        ["北京是中国的首都。", "你去过吗？", "真美！"],
        ["他说：“今天下雨。”", "然后走了。", "价格是3.5元。"],
        ["他问：“你好吗？”", "我说：「很好。」", "她笑了……然后离开。"],
        ["東京は日本の首都です。", "人口は約1400万人。"],
    ],
)
def test_chinese_and_japanese_are_split_without_spaces(expected: list[str]) -> None:
    assert texts("".join(expected)) == expected


def test_items_of_lists_are_sentences_with_their_numbers() -> None:
    text = (
        "Items:\n- First one\n  * Second. With more.\n1. Numbered one\n12) Numbered two\n"
        "（3）丙\n# Title"
    )

    assert texts(text) == [
        *("Items:", "- First one", "* Second.", "With more.", "1. Numbered one"),
        *("12) Numbered two", "（3）丙", "# Title"),
    ]


def test_a_line_break_alone_ends_no_sentence_and_an_empty_line_does() -> None:
    assert texts("Wrapped over\ntwo lines. Next") == ["Wrapped over\ntwo lines.", "Next"]
    assert texts("A title\n\nIts text\r\n \r\nLast") == ["A title", "Its text", "Last"]
    assert texts("It grew by\n1.5 percent, or\n-3 degrees.") == [
        "It grew by\n1.5 percent, or\n-3 degrees."
    ]


def test_offsets_are_code_points() -> None:
    text = "😀 Hi.\u3000你好。 e\u0301te\u0301 x."

    assert sentences(text) == [(0, 5), (6, 9), (10, 18)]


def test_a_text_without_marks_is_divided_at_blanks() -> None:
    found = sentences("word " * 1_500)

    assert len(found) == 4
    assert max(end - start for start, end in found) <= MAX_CHARACTERS
    assert all(text.startswith("word") for text in texts("word " * 1_500))


@given(st.text(alphabet=st.sampled_from("aB .。?！\"“”'«\n\r-1)。（😀\u0301\u3000"), max_size=200))
def test_every_character_but_white_space_is_in_one_sentence(text: str) -> None:
    found = sentences(text)

    covered = [position for start, end in found for position in range(start, end)]
    assert covered == sorted(set(covered))
    assert {index for index, one in enumerate(text) if not one.isspace()} <= set(covered)
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in found)


@pytest.mark.parametrize("part", ["“", "“x。", '"', "A.", ".", "(", "\n", "\n- ", "« a. ", "中。"])
def test_the_work_grows_with_the_text(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """sentencex takes quadratic time for quotes, so it gets windows of bounded size."""
    split = module._splitter()
    sizes: list[int] = []

    def boundaries(language: str, text: str) -> module._Boundaries:
        sizes.append(len(text))
        return split(language, text)

    monkeypatch.setattr(module, "_splitter", lambda: boundaries)
    text = (part * 100_000)[:100_000]
    sentences(text)

    assert max(sizes) <= MAX_CHARACTERS
    assert sum(sizes) <= 3 * len(text)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencex", None)
    module._splitter.cache_clear()

    with pytest.raises(InvalidRequest, match="needs the Python package sentencex"):
        sentences("A text.")

    monkeypatch.undo()
    assert texts("A text. B.") == ["A text.", "B."]
