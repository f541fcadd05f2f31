"""Warnings that an answer carries: sentences about what the client probably did not expect."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from pydantic import BaseModel

from rankd.config.tables import CUSTOM
from rankd.config.text import shorten
from rankd.dialects.reply import above_threshold
from rankd.dialects.request import RequestBody
from rankd.ranking.profiles import Profile
from rankd.ranking.service import ModelService
from rankd.telemetry import metrics
from rankd.types import ScoredDocument

# Unknown fields that are named; the others are only counted.
_MAX_FIELDS = 20

# Ranges of documents that one warning names.
_MAX_RANGES = 100


def unknown_fields(request: BaseModel, dialect: str) -> list[str]:
    """Fields that the dialect does not have; counts them in the metrics, too."""
    names = sorted(_extra_fields(request))
    if names:
        metrics.UNKNOWN_FIELDS.labels(dialect).inc(len(names))
    return [f"unknown field {shorten(name)!r} was ignored" for name in names[:_MAX_FIELDS]]


def _extra_fields(model: BaseModel, path: str = "") -> Iterator[str]:
    for name in model.model_extra or ():
        yield path + name
    for name, value in model:
        if isinstance(value, BaseModel):
            yield from _extra_fields(value, f"{path}{name}.")


def truncation_warnings(documents: Iterable[ScoredDocument]) -> list[str]:
    """Each document that was cut, with its length before and after."""
    return [
        f"document {document.index} was cut from {'more than ' if document.longer else ''}"
        f"{document.document_tokens} to {document.kept_tokens} tokens"
        for document in documents
        if document.truncated
    ]


def not_scored_warning(indexes: Sequence[int], count: int) -> list[str]:
    """Which of `count` documents were not scored in time."""
    if not indexes:
        return []
    ranges = _ranges(indexes)
    shown = ", ".join(ranges[:_MAX_RANGES]) + (", ..." if len(ranges) > _MAX_RANGES else "")
    return [f"{len(indexes)} of {count} documents were not scored in time: {shown}"]


def _ranges(indexes: Sequence[int]) -> list[str]:
    """`[3, 5, 6, 7]` → `3`, `5-7`."""
    ranges: list[list[int]] = []
    for index in indexes:
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return [f"{first}-{last}" if last > first else f"{first}" for first, last in ranges]


def profile_warnings(profile: Profile, service: ModelService) -> list[str]:
    """An `instruction` that equals a preset's name: it was read as text, probably by mistake."""
    if profile.preset != CUSTOM or profile.instruction not in service.profiles.presets:
        return []
    return [
        f"the instruction {profile.instruction!r} was read as a text; to use the preset of that "
        f'name, send "preset": {profile.instruction!r}'
    ]


def threshold_warnings(
    documents: Sequence[ScoredDocument], request: RequestBody, profile: Profile
) -> list[str]:
    """A configured threshold that left documents out, or a sent one that has no effect."""
    if request.threshold() is not None:
        ignored = "score_threshold has no effect here: the answer holds every document"
        return [] if request.applies_threshold() else [ignored]
    left_out = len(documents) - len(above_threshold(documents, request, profile))
    if not left_out:
        return []
    return [
        f"{left_out} of {len(documents)} documents scored below {profile.threshold or 0:g}, the "
        "threshold configured here, and are left out; send a score_threshold of your own to see "
        "them"
    ]
