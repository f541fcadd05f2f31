"""Response headers that rankd adds in every dialect."""

from __future__ import annotations

from collections.abc import Sequence

from rankd.types import RankUsage

# Warnings in a header; a proxy refuses headers of more than a few thousand bytes.
_MAX_WARNINGS = 5


def answer_headers(
    warnings: Sequence[str], usage: RankUsage, left_out: int | None
) -> dict[str, str]:
    """The headers about warnings, usage, and the threshold if there is one (not None)."""
    headers = warning_header(warnings) if warnings else {}
    headers |= usage_headers(usage)
    return headers if left_out is None else headers | below_header(left_out)


def warning_header(warnings: Sequence[str]) -> dict[str, str]:
    """`x-rankd-warnings`: the first five, in ASCII, because few dialects have a field for them."""
    if not warnings:
        return {}
    more = len(warnings) - _MAX_WARNINGS
    shown = [*warnings[:_MAX_WARNINGS], *([f"and {more} more"] if more > 0 else [])]
    return {"x-rankd-warnings": "; ".join(shown).encode("ascii", "backslashreplace").decode()}


def usage_headers(usage: RankUsage) -> dict[str, str]:
    """`x-rankd-usage`: what the request is charged for, as a dictionary of RFC 9651."""
    counts = ", ".join([f"{name}={count}" for name, count in usage._asdict().items()])
    return {"x-rankd-cached": str(usage.cached_documents), "x-rankd-usage": counts}


def below_header(left_out: int) -> dict[str, str]:
    """`x-rankd-below-threshold`: documents left out by the threshold."""
    return {"x-rankd-below-threshold": str(left_out)}
