"""Rows: what is scored, what is read from a file at a time, and what a row becomes."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rankd.config.text import shorten
from rankd.dialects.fields import query_of, text_at, texts_of
from rankd.dialects.json_values import type_name
from rankd.errors import InvalidRequest
from rankd.offline.options import DOCUMENT_COLUMNS, Columns

# Rows that are read at a time, and their bytes: a few of these batches are in memory.
BATCH_ROWS = 512
BATCH_BYTES = 4 * 1024 * 1024

_MAX_NAMES = 300


@dataclass(frozen=True, slots=True)
class Row:
    """A query with its documents.

    Attributes:
        location: `FILE:LINE`, for messages.
        documents: N >= 1 texts.
        instruction: the row's own; None: the command's.
        is_list: the row has a list of documents, and gets a list of scores.
    """

    location: str
    query: str
    documents: tuple[str, ...]
    instruction: str | None = None
    is_list: bool = False


class BadRow(Exception):
    """A row that cannot be scored; the text is the location and what is wrong."""

    def __init__(self, location: str, problem: str) -> None:
        super().__init__(f"{location}: {problem}")


@dataclass(frozen=True, slots=True)
class RowBatch:
    """Rows that are read, scored and written together.

    Attributes:
        raw: the rows as their file format has them.
        position: bytes of the file that are read with this batch.
    """

    rows: Sequence[Row | BadRow]
    raw: Any
    position: int


@dataclass(frozen=True)
class RowCounts:
    """Figures of scored rows.

    Attributes:
        tokens: that the model read.
        truncated: documents that were cut.
        bad_rows: rows with an error instead of scores.
        unwrapped: rows whose texts held the model's prompt, which was taken off.
        suspicious: rows whose texts held parts of a prompt, and were scored as they are.
    """

    rows: int = 0
    documents: int = 0
    tokens: int = 0
    truncated: int = 0
    bad_rows: int = 0
    unwrapped: int = 0
    suspicious: int = 0

    def __add__(self, other: RowCounts) -> RowCounts:
        sums = zip(asdict(self).items(), asdict(other).values(), strict=True)
        return RowCounts(**{name: mine + its for (name, mine), its in sums})


@dataclass(frozen=True, slots=True)
class RowScores:
    """What a row gets: one value per document, in the order of its documents.

    Attributes:
        numbers: scores in [0, 1] or logits in nats, with the digits that servers show.
        normalized: calibrated probabilities; None without a calibration.
        truncated: whether the document was cut.
    """

    numbers: list[float]
    truncated: list[bool]
    normalized: list[float] | None = None

    def columns(self, row: Row, columns: Columns) -> dict[str, Any]:
        """The values by column: lists if the row has a list, else the only one of each."""
        values: dict[str, list[Any] | None] = {
            columns.score: self.numbers,
            columns.normalized: self.normalized,
            columns.truncated: self.truncated,
        }
        return {
            name: of_each if row.is_list else of_each[0]
            for name, of_each in values.items()
            if of_each is not None
        }


RowResult = RowScores | BadRow


def read_row(location: str, fields: Mapping[str, Any], columns: Columns) -> Row | BadRow:
    """A row from its columns.

    Text is what the server reads as such: a string, or an object with `text`.
    """
    try:
        refuse_added(fields, columns)
        name = document_column(fields, columns)
        value = fields[name]
        return Row(
            location,
            query=text_at(_value(fields, columns.query), repr(columns.query), query_of),
            documents=_documents(value, name),
            instruction=_instruction(fields, columns.instruction),
            is_list=isinstance(value, list),
        )
    except InvalidRequest as problem:
        return BadRow(location, problem.message)


def refuse_added(names: Container[str], columns: Columns) -> None:
    """Raises `InvalidRequest` if a column has the name of one that rankd adds."""
    taken = [name for name in columns.added if name in names]
    if taken:
        raise InvalidRequest(f"column {taken[0]!r} exists already: choose another --score-column")


def document_column(names: Mapping[str, Any], columns: Columns) -> str:
    """The column that holds the documents.

    Raises:
        InvalidRequest: there is none; lists the columns.
    """
    wanted = DOCUMENT_COLUMNS if columns.document is None else (columns.document,)
    found = [name for name in wanted if name in names]
    if not found:
        raise InvalidRequest(missing(" or ".join(map(repr, wanted)), names, "document"))
    return found[0]


def missing(name: str, names: Mapping[str, Any], column: str) -> str:
    known = shorten(", ".join(names), _MAX_NAMES) or "none"
    return f"no column {name}; its columns are: {known} (see --{column}-column)"


def _value(fields: Mapping[str, Any], name: str) -> Any:
    if name not in fields:
        raise InvalidRequest(missing(repr(name), fields, "query"))
    return fields[name]


def _documents(value: Any, name: str) -> tuple[str, ...]:
    if isinstance(value, list):
        return texts_of(value, repr(name))
    return (text_at(value, repr(name)),)


def _instruction(fields: Mapping[str, Any], name: str | None) -> str | None:
    """The row's own instruction; null and a missing column: the command's."""
    value = None if name is None else fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest(f"{name!r} must be a text that is not empty, not {type_name(value)}")
    return value
