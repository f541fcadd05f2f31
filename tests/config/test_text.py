"""Text in messages and answers: shortened, and without lone surrogates."""

from __future__ import annotations

import pytest

from rankd.config.text import has_surrogates, replace_surrogates, shorten


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("", ""),
        ("x" * 60, "x" * 60),
        ("x" * 61, "x" * 57 + "..."),
        ("北京" * 40, "北京" * 28 + "北..."),
    ],
)
def test_a_text_of_more_than_60_characters_is_shortened(text: str, short: str) -> None:
    assert shorten(text) == short


def test_the_limit_counts_the_dots() -> None:
    assert shorten("abcdefghij", 8) == "abcde..."


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("plain 北京 🙂", "plain 北京 🙂"),
        ("half \ud83d", "half \ufffd"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("whole \ud83d\ude42", "whole 🙂"),
    ],
)
def test_lone_surrogates_are_replaced_and_pairs_joined(text: str, replaced: str) -> None:
    assert replace_surrogates(text) == replaced
    assert not has_surrogates(replaced)


def test_a_surrogate_is_found_wherever_it_stands() -> None:
    assert has_surrogates("a\udfff")
    assert has_surrogates("\ud800a")
    assert not has_surrogates("北京 🙂")
