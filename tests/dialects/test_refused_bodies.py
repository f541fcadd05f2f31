"""A body that is refused before its dialect is chosen still gets the errors of its API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.dialects.refused_bodies import outline
from support.calling import calling

MANY = ["a"] * 21

DEEP = "[" * 80 + "]" * 80

TEI = '"query": "q", "texts": ["a"]'
NIM = '"query": {"text": "q"}, "passages": [{"text": "a"}]'
VOYAGE = '"query": "q", "documents": ["a"], "top_k": 1'
WEAVIATE = '"query": "q", "documents": ["a"], "property": "text"'
DASHSCOPE = '"input": {"query": "q", "documents": ["a"]}'
COHERE = '"query": "q", "documents": ["a"]'

MANY_NAMES = [f'"{number}"' for number in range(10_001)]

REFUSALS: dict[str, Callable[[str], str]] = {
    "a field twice": lambda fields: "{%s, %s}" % (fields, fields),  # noqa: UP031
    "a long list": lambda fields: f'{{{fields}, "more": {json.dumps(MANY)}}}',
    "nesting": lambda fields: f'{{{fields}, "more": {DEEP}}}',
    "more nesting than JSON has": lambda fields: f'{{{fields}, "more": {"[" * 5000}',
    "fields": lambda fields: f"{{{fields}, {', '.join(f'{n}: 1' for n in MANY_NAMES)}}}",
    "values": lambda fields: f'{{{fields}, "more": [{"[],[]," * 260_000}[]]}}',
    "no end": lambda fields: f"{{{fields}",
    "no JSON": lambda fields: f'{{{fields}, "more": nan}}',
}


@pytest.fixture(scope="module")
def roomy() -> Iterator[TestClient]:
    with calling(Settings(engine="fake", max_documents=20, cache_mb=0)) as client:
        yield client


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("path", ["/v1/rerank", "/rerank", "/invocations", "/tei/rerank"])
def test_a_refusal_before_the_dialect_is_chosen_has_the_format_of_a_later_one(
    refusal: str, path: str, roomy: TestClient
) -> None:
    shapes = set()
    for fields in (TEI, NIM, VOYAGE, WEAVIATE, COHERE, DASHSCOPE):
        later = roomy.post(path, content=f'{{{fields}, "priority": -1}}')
        sooner = roomy.post(path, content=REFUSALS[refusal](fields))

        assert later.status_code == 400
        assert sooner.status_code in (400, 413)
        assert shape(sooner.json()) == shape(later.json()), fields
        shapes.add(str(shape(sooner.json())))
    assert len(shapes) == (1 if path == "/tei/rerank" else 4)


def shape(error: Any) -> dict[str, type]:
    return {name: type(value) for name, value in error.items()}


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (
            b'{"a": [1, {"b": 2}], "c" : {"d": []}, "e": "x", "f": null, "g": true}',
            {"a": [], "c": {}, "e": "", "f": None, "g": True},
        ),
        (b'\xef\xbb\xbf {"a": 1, "b', {"a": ""}),
        (b'{"a\\"b": "}", "c": ["]\\\\", "\\""], "d": false', {'a"b': "", "c": [], "d": False}),
        (b'[{"a": 1}]', {}),
        (b"", {}),
        (b"\xff\xfe{", {}),
    ],
)
def test_the_outline_has_the_top_level_fields(body: bytes, fields: dict[str, Any]) -> None:
    assert outline(body) == fields


QUESTION = {"query": "中国的首都是哪里", "documents": ["北京是中国的首都"]}
BOUNDARY = '--x\r\nContent-Disposition: form-data; name="query"\r\n\r\nq\r\n--x--\r\n'


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (json.dumps(QUESTION, ensure_ascii=False).encode("gbk"), ("GBK", "UTF-8")),
        (json.dumps({"query": "é!"}, ensure_ascii=False).encode("latin-1"), ("Latin-1", "UTF-8")),
        (json.dumps(QUESTION).encode("utf-16"), ("UTF-16", "UTF-8")),
        (json.dumps(QUESTION).encode("utf-16-le"), ("UTF-16", "UTF-8")),
        (json.dumps(QUESTION).encode("utf-32"), ("UTF-32", "UTF-8")),
        (BOUNDARY.encode(), ("multipart/form-data", "application/json")),
        (b"query=q&documents=a", ("application/x-www-form-urlencoded", "application/json")),
        (b"documents%5B%5D=a", ("application/x-www-form-urlencoded", "application/json")),
        (b'{"query": nope}', ("line 1", "column 11")),
    ],
)
def test_a_body_that_is_no_json_in_utf8_is_told_what_it_is_and_what_to_send(
    content: bytes, named: tuple[str, ...], client: TestClient
) -> None:
    reply = client.post("/v1/rerank", content=content)

    assert reply.status_code == 400
    assert reply.json()["message"].startswith("the body is not valid JSON: ")
    for words in named:
        assert words in reply.json()["message"]


@pytest.mark.parametrize(
    "body",
    [
        '{"query": "q", "documents": [{"text": "a", "text": "b"}]}',
        '{"query": "q", "documents": ["a"], "quer\\u0079": "r"}',
        '{"query": "q", "documents": ["a"], "m": [{"a": 1, "a": 123456789%s}]}' % ("0" * 200),
        '{"input": {"query": "q", "query": "r", "documents": ["a"]}}',
    ],
)
def test_a_field_twice_is_refused_wherever_it_stands(body: str, client: TestClient) -> None:
    reply = client.post("/v1/rerank", content=body)

    assert reply.status_code == 400
    assert "stands twice in one object; send it once" in reply.json()["message"]


@pytest.mark.parametrize(
    "text", ['a": 1, "a": 2', '\\": 1, "a', "\\", '"query": "q"', ":::", '{"query" : 1}']
)
def test_names_in_texts_do_not_count_as_fields(text: str, client: TestClient) -> None:
    body = {"query": text, "documents": [text, {"text": text, text: 1, "more": {text: 2}}]}

    assert client.post("/v1/rerank", json=body).status_code == 200
