"""The limit on the number of values in a body, counted before it is parsed."""

from __future__ import annotations

import orjson
import pytest

from rankd.dialects.json_io import read_object
from rankd.errors import TooLarge

MANY = 500_001


@pytest.mark.parametrize(
    "values",
    [
        b"[" + b",".join([b"[]"] * MANY) + b"]",
        b"[" + b",".join([b'"\\"[,"'] * MANY) + b"]",
        b"[" + b",".join([b'""'] * (2 * MANY)) + b"]",
        b"{" + b",".join([b'"a":1'] * MANY) + b"}",
        b'["' + b"\\\\" * 3 + b'",' + b",".join([b"1"] * MANY) + b"]",
    ],
    ids=["lists", "texts", "empty texts", "fields", "backslashes"],
)
def test_a_body_with_too_many_values_is_refused_before_it_is_parsed(values: bytes) -> None:
    with pytest.raises(TooLarge, match="the body has more than 500,000 values"):
        read_object(
            b'{"query": "q", "documents": ' + values, 1000
        )  # Not valid JSON: its end is missing.


@pytest.mark.parametrize("text", ["[{,", '\\"[,"{\\\\', "\\"])
def test_brackets_and_commas_in_strings_are_not_counted(text: str) -> None:
    body = orjson.dumps({"query": "q", "documents": [text * MANY]})

    assert read_object(body, 1000)["documents"] == [text * MANY]


def test_a_higher_limit_of_documents_allows_more_values() -> None:
    body = orjson.dumps({"query": "q", "documents": ["d"] * MANY})

    assert len(read_object(body, MANY)["documents"]) == MANY
