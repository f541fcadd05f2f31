"""Text as messages and answers can hold it: shortened, and without lone surrogates."""

from __future__ import annotations


def shorten(text: str, limit: int = 60) -> str:
    """The text, or its beginning and `...` when it has more than `limit` characters."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def has_surrogates(text: str) -> bool:
    """Whether UTF-8 cannot encode it, as text from a command line that is not UTF-8."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def replace_surrogates(text: str) -> str:
    """The text with U+FFFD for each lone surrogate, and surrogate pairs joined.

    JavaScript's splitters send half a pair whenever they cut an emoji in two.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
