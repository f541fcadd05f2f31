"""Warnings that an answer carries: sentences about what the client probably did not expect."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rankd.config.text import shorten
from rankd.dialects.reply import above_threshold
from rankd.dialects.resolved import AnswerOptions, ResolvedRequest
from rankd.telemetry import metrics
from rankd.types import ScoredDocument, best_first

# Unknown fields that are named; the others are only counted.
_MAX_FIELDS = 20

# Characters of a field's path that are shown.
_MAX_PATH = 60

# Ranges of documents that one warning names.
_MAX_RANGES = 100


def answer_warnings(
    request: ResolvedRequest,
    documents: Sequence[ScoredDocument],
    cut: Sequence[ScoredDocument],
    not_scored: Sequence[int] = (),
) -> list[str]:
    """All warnings of an answer with one query.

    Args:
        documents: the scored ones.
        cut: those of them that were cut.
        not_scored: indexes of the documents that were not scored in time.
    """
    warnings = []
    if not_scored:
        warnings += not_scored_warning(not_scored, len(documents) + len(not_scored))
    if request.unknown_fields:
        warnings += field_warnings(request.unknown_fields)
    if cut:
        warnings += truncation_warnings(cut)
    if request.names_preset or request.prompt_warning:
        warnings += instruction_warnings(request)
    if request.answer.threshold or request.answer.threshold_ignored:
        warnings += threshold_warnings(documents, request.answer)
    if request.answer.relevant_spans:
        warnings += span_warnings(documents, request.answer)
    return warnings


def field_warnings(unknown: Sequence[str]) -> list[str]:
    """Fields that the dialect does not have; of those with a long path, the last part."""
    return [
        f"unknown field {shorten(name if len(name) <= _MAX_PATH else name.rpartition('.')[2])!r} "
        "was ignored"
        for name in unknown[:_MAX_FIELDS]
    ]


def count_unknown_fields(unknown: Sequence[str], dialect: str) -> None:
    """Count them in the metrics."""
    if unknown:
        metrics.UNKNOWN_FIELDS.labels(dialect).inc(len(unknown))


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
    return [
        f"{len(indexes)} of {count} documents were not scored in time: {_shown_ranges(indexes)}"
    ]


def _shown_ranges(indexes: Sequence[int]) -> str:
    ranges = _ranges(indexes)
    return ", ".join(ranges[:_MAX_RANGES]) + (", ..." if len(ranges) > _MAX_RANGES else "")


def _ranges(indexes: Sequence[int]) -> list[str]:
    """`[3, 5, 6, 7]` → `3`, `5-7`."""
    ranges: list[list[int]] = []
    for index in indexes:
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    return [f"{first}-{last}" if last > first else f"{first}" for first, last in ranges]


def instruction_warnings(request: ResolvedRequest) -> list[str]:
    """What is probably a mistake in the prompt: known before anything is scored.

    A prompt that the client brought along, or an `instruction` that equals a preset's name and
    was read as text.
    """
    warnings = [request.prompt_warning] if request.prompt_warning else []
    if request.names_preset:
        name = request.profile.instruction
        warnings.append(
            f"the instruction {name!r} was read as a text; to use the preset of that "
            f'name, send "preset": {name!r}'
        )
    return warnings


def span_warnings(documents: Sequence[ScoredDocument], options: AnswerOptions) -> list[str]:
    """Results whose sentences were not all scored in time."""
    best = best_first(above_threshold(documents, options))[: options.top_n]
    late = sorted([document.index for document in best if document.relevant_spans is None])
    if not late:
        return []
    return [
        f"relevant_spans of {len(late)} of {len(best)} results were not scored in time: "
        f"{_shown_ranges(late)}"
    ]


def threshold_warnings(documents: Sequence[ScoredDocument], options: AnswerOptions) -> list[str]:
    """A configured threshold that left documents out, or a sent one that has no effect."""
    if options.threshold_ignored:
        return ["score_threshold has no effect here: the answer holds every document"]
    threshold = options.threshold
    if threshold is None or not threshold.configured:
        return []
    left_out = len(documents) - len(above_threshold(documents, options))
    if not left_out:
        return []
    return [
        f"{left_out} of {len(documents)} documents scored below {threshold.value:g}, the "
        "threshold configured here, and are left out; send a score_threshold of your own to see "
        "them"
    ]
