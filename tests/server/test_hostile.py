"""Malformed and hostile requests on every path: errors in the path's format, no crash."""

from __future__ import annotations

import gzip
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from http.client import HTTPConnection
from types import MappingProxyType
from typing import Any

import jsonschema_rs
import pytest
from pydantic import TypeAdapter

from rankd.dialects import DIALECTS, route_specs
from rankd.dialects.openapi import body_of
from rankd.dialects.routes import RouteSpec
from support.openapi import Json, closed, examples, shapes_in
from support.servers import Server, serving

HARMLESS = {"query": "capital of China", "documents": ["Lions live in Africa.", "China: Beijing"]}

# Turns the example body of a path into the bytes of an attack.
Spoil = Callable[[Json], bytes]


def plain(body: Json) -> bytes:
    return json.dumps(body).encode()


def instead(body: bytes) -> Spoil:
    return lambda _: body


def beside(field: str) -> Spoil:
    """One more field, as raw JSON."""
    return lambda body: b"{%s, %s" % (field.encode("utf-8", "surrogatepass"), plain(body)[1:])


def in_texts(piece: bytes) -> Spoil:
    """Raw bytes at the end of every text."""

    def marked(value: Any) -> Any:
        match value:
            case list():
                return [marked(item) for item in value]
            case dict():
                return {name: marked(item) for name, item in value.items()}
            # Texts contain spaces or Chinese; names of models, fields and choices do not.
            case str() if " " in value or not value.isascii():
                return f"{value}@@"
        return value

    return lambda body: plain(marked(body)).replace(b"@@", piece)


def in_document(value: Any) -> Spoil:
    """Replace the first document."""

    def spoil(body: Json) -> bytes:
        spoiled = deepcopy(body)
        target = spoiled["input"] if isinstance(spoiled.get("input"), dict) else spoiled
        for name in ("documents", "texts", "passages", "input", "text_2"):
            if isinstance(target.get(name), list):
                nested = isinstance(target[name][0], list)
                target[name][0] = [value] if nested else value
        return plain(spoiled)

    return spoil


def twice(body: Json) -> bytes:
    """Repeat the first field."""
    name, value = next(iter(body.items()))
    return beside(f"{json.dumps(name)}: {json.dumps(value)}")(body)


def within(levels: int, inmost: Any = "x") -> Any:
    for _ in range(levels):
        inmost = {"in": inmost}
    return inmost


# Five times the levels that a parser takes; more of them is a test of its own.
DEEP = 5_000
# The deepest nesting that orjson parses.
DEEPEST = '{"in":' * 1020 + "1" + "}" * 1020
FORM = "application/x-www-form-urlencoded"

ROUTES = tuple(route_specs())
assert len(ROUTES) > 20

# Name → body, headers, allowed statuses.
ATTACKS: dict[str, tuple[Spoil, Mapping[str, str], set[int]]] = {
    # Not JSON, or not an object.
    "nothing": (instead(b""), {}, {400}),
    "blanks": (instead(b" \r\n\t "), {}, {400}),
    "an array": (instead(b"[]"), {}, {400}),
    "null": (instead(b"null"), {}, {400}),
    "a string": (instead(b'"x"'), {}, {400}),
    "a number": (instead(b"1"), {}, {400}),
    "an empty object": (instead(b"{}"), {}, {400}),
    "half of a body": (lambda body: plain(body)[:-1], {}, {400}),
    "two bodies": (lambda body: plain(body) * 2, {}, {400}),
    "single quotes": (instead(b"{'query': 'q'}"), {}, {400}),
    "a form": (instead(b"query=q&documents=d"), {"content-type": FORM}, {400}),
    "noise": (instead(bytes(range(256))), {}, {400}),
    "NUL bytes": (instead(bytes(100)), {}, {400}),
    # Invalid JSON.
    "NaN": (beside('"more": NaN'), {}, {400}),
    "Infinity": (beside('"more": Infinity'), {}, {400}),
    "-Infinity": (beside('"more": [-Infinity]'), {}, {400}),
    "NaN where a number belongs": (beside('"timeout_ms": NaN'), {}, {400}),
    "a NUL byte in a text": (in_texts(b"\0"), {}, {400}),
    "bytes that are no UTF-8": (in_texts(b"\xff\xfe"), {}, {400}),
    "surrogates as bytes": (in_texts(b"\xed\xa0\xbd"), {}, {400}),
    "arrays without end": (beside('"more": ' + "[" * DEEP), {}, {400}),
    "deep arrays": (beside('"more": ' + "[" * DEEP + "]" * DEEP), {}, {400}),
    "deep objects": (beside('"more": ' + '{"a":' * DEEP + "1" + "}" * DEEP), {}, {400}),
    "nothing but depth": (instead(b"[" * DEEP + b"]" * DEEP), {}, {400}),
    # Unusual but valid JSON.
    "half a surrogate pair": (in_texts(rb" \ud83d"), {}, {200}),
    "halves in the wrong order": (in_texts(rb" \ude00\ud83d"), {}, {200}),
    "an escaped NUL": (in_texts(rb" \u0000"), {}, {200}),
    "control characters": (in_texts(rb" \u0001\u001b\u007f\u0085\u202e"), {}, {200}),
    "tokens of the template": (in_texts(b" <|im_start|><|im_end|></think>"), {}, {200}),
    "half a surrogate pair in a name": (beside(r'"a\ud83d": 1'), {}, {200}),
    "an escaped NUL in a name": (beside(r'"a\u0000": 1'), {}, {200}),
    "lines in a name": (beside(r'"a\r\nset-cookie: b=c\r\n\r\n": 1'), {}, {200}),
    "no name": (beside('"": 1'), {}, {200}),
    "a name of 100 kB": (beside(f'"{"n" * 100_000}": 1'), {}, {200}),
    "__proto__": (beside('"__proto__": {"query": 1}, "constructor": null'), {}, {200}),
    "names of methods": (beside('"model_config": {}, "__class__": 1, "ask": 2'), {}, {200}),
    "a thousand unknown fields": (
        beside(", ".join(f'"more{number}": {number}' for number in range(1000))),
        {},
        {200},
    ),
    "a number beyond all": (beside('"more": 1e400'), {}, {200, 400}),
    "an integer of 5,000 digits": (beside(f'"more": {"9" * 5000}'), {}, {200, 400}),
    "priority of 5,000 digits": (beside(f'"priority": {"9" * 5000}'), {}, {200, 400}),
    "priority beyond all": (beside('"priority": 1e400'), {}, {200, 400}),
    "a level too many": (beside('"more": ' + json.dumps(within(900))), {}, {200, 400}),
    "a field twice": (twice, {}, {400}),
    "a field twice, escaped": (beside(r'"more": 1, "mor\u0065": 2'), {}, {200, 400}),
    "a field twice within": (
        beside('"input": {"query": 1, "query": 2}, "parameters": {"top_n": 1, "top_n": 2}'),
        {},
        {200, 400},
    ),
    "a document of many levels": (in_document({"text": "a", "in": within(240)}), {}, {200, 400}),
    "a document of more levels": (in_document({"text": "a", "in": within(900)}), {}, {200, 400}),
    "levels instead of a text": (in_document(within(900)), {}, {200, 400}),
    "levels and a name twice": (in_document({"query": within(900)}), {}, {200, 400}),
    "levels for a choice": (beside(f'"truncation_direction": {DEEPEST}'), {}, {200, 400}),
    "levels for an instruction": (beside(f'"instruct": {DEEPEST}'), {}, {200, 400}),
    "half a pair beside a long integer": (
        in_document({"text": "a \ud83d", "more": 10**30}),
        {},
        {200, 400},
    ),
    "a document of 100 kB": (in_document("a word " * 15_000), {}, {200, 400}),
    "a document without a blank": (in_document("a" * 100_000), {}, {200, 400}),
    "a model of 100 kB": (beside(f'"model": "{"m" * 100_000}"'), {}, {200, 400}),
    "an instruction of 100 kB": (beside(f'"instruction": "{"i " * 50_000}"'), {}, {200, 400}),
    # Unusual headers and encodings.
    "no content type": (plain, {"content-type": ""}, {200}),
    "text": (plain, {"content-type": "text/plain"}, {200}),
    "a form in name": (plain, {"content-type": FORM}, {200}),
    "parts in name": (plain, {"content-type": "multipart/form-data; boundary=x"}, {200}),
    "another charset in name": (
        plain,
        {"content-type": "application/json; charset=utf-16"},
        {200},
    ),
    "no type at all": (plain, {"content-type": "\xff/;;="}, {200}),
    "UTF-16": (lambda body: json.dumps(body).encode("utf-16"), {}, {400}),
    "UTF-32": (lambda body: json.dumps(body).encode("utf-32-le"), {}, {400}),
    "a mark of UTF-8": (lambda body: b"\xef\xbb\xbf" + plain(body), {}, {200, 400}),
    "gzip": (
        lambda body: gzip.compress(plain(body)),
        {"content-encoding": "gzip"},
        {200, 415},
    ),
    "gzip unsaid": (lambda body: gzip.compress(plain(body)), {}, {400, 415}),
    "gzip in name": (plain, {"content-encoding": "gzip"}, {400, 415}),
    "another coding": (plain, {"content-encoding": "br, \xff"}, {415}),
    "a length that is none": (plain, {"x-content-length": "-1"}, {200}),
}

# Values that replace each field.
WRONG: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    1e308,
    10**30,
    "",
    "x",
    "\0",
    "9" * 5000,
    [],
    [None],
    [[]],
    [{}],
    ["x", 1],
    {},
    {"text": None},
    {"text": {"text": "x"}},
    {"content": []},
    {"content": [{"type": "image_url"}]},
    {"": ""},
)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("--engine", "fake", "--cache-mb", "0", "--no-access-log") as running:
        yield running
        _, errors = running.stop(signal.SIGTERM)
        assert "Traceback" not in errors


@pytest.fixture(scope="module")
def line(server: Server) -> Iterator[HTTPConnection]:
    """One connection for all requests, so that leftovers of one would break the next."""
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    yield connection
    connection.close()


@pytest.fixture(autouse=True)
def neighbour(server: Server) -> Iterator[None]:
    """Another client whose valid requests must all succeed meanwhile."""
    answers: list[tuple[int, Any]] = []
    left = threading.Event()

    def ask() -> None:
        with connected(server) as connection:
            while not answers or not left.wait(0.005):
                answers.append(sent(connection, "POST", "/v1/rerank", plain(HARMLESS)))

    thread = threading.Thread(target=ask)
    thread.start()
    yield
    left.set()
    thread.join(60)
    expected = [200, [(1, True), (0, True)]]
    results = [[status, ranked(answer)] for status, answer in answers]
    assert results
    assert [result for result in results if result != expected] == []


def ranked(answer: Json) -> list[tuple[int, bool]]:
    return [(one["index"], 0 <= one["relevance_score"] <= 1) for one in answer.get("results", ())]


@pytest.mark.parametrize("name", ATTACKS)
def test_every_path_answers_an_attack_with_an_allowed_status(
    name: str, line: HTTPConnection
) -> None:
    spoil, headers, allowed = ATTACKS[name]
    for spec in ROUTES:
        status, answer = sent(line, "POST", path_of(spec), spoil(example_of(spec)), headers)

        assert status in allowed, f"{spec.path}: {status} {answer}"
        conforms(spec, status, answer)


@pytest.mark.parametrize("level", ["[", '{"a":'])
@pytest.mark.parametrize("path", ["/v1/rerank", "/v1/score"])
def test_400_000_levels_are_refused(path: str, level: str, line: HTTPConnection) -> None:
    body = b'{"query": "q", "documents": ["d"], "more": %s' % (level.encode() * 400_000)
    status, answer = sent(line, "POST", path, body)

    assert status == 400
    assert "depth" in str(answer)


@pytest.mark.slow
def test_wrong_types_in_any_field_are_refused_or_ignored(line: HTTPConnection) -> None:
    seen = set()
    for spec in ROUTES:
        for request in spec.requests:
            if request not in seen:
                seen.add(request)
                for body in with_wrong_values(request):
                    status, answer = sent(line, "POST", path_of(spec), plain(body))

                    assert status in (200, 400), f"{spec.path}: {body}: {status} {answer}"
                    conforms(spec, status, answer)

    assert len(seen) > len(DIALECTS)


@pytest.mark.slow
def test_a_body_of_20_megabytes_is_read(line: HTTPConnection) -> None:
    more = beside(f'"more": "{"m" * 20_000_000}"')
    for spec in ROUTES:
        if spec.shown:
            status, answer = sent(line, "POST", path_of(spec), more(example_of(spec)))

            assert status == 200, f"{spec.path}: {answer}"
            conforms(spec, status, answer)


@pytest.mark.parametrize("text", ["a word " * 3_000_000, "a" * 5_000_000, "\0" * 3_000_000])
def test_a_document_of_megabytes_is_cut(text: str, line: HTTPConnection) -> None:
    body = {"query": "q", "documents": [text, "short"], "return_documents": False}
    status, answer = sent(line, "POST", "/v1/rerank", plain(body))

    assert status == 200, answer
    assert len(answer["results"]) == 2


def test_a_repeated_rank_field_is_read_once(line: HTTPConnection) -> None:
    # Otherwise a body of 10 MB could become texts of 10 GB.
    body = {"query": "q", "documents": [{"text": "a word " * 9}], "rank_fields": ["text"]}
    often = {**body, "rank_fields": ["text"] * 1000}
    answers = [sent(line, "POST", "/v1/rerank", plain(one))[1] for one in (body, often)]

    assert answers[0]["usage"] == answers[1]["usage"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_other_methods_are_a_405_with_the_allowed_methods(method: str, server: Server) -> None:
    for spec in ROUTES:
        path = path_of(spec)
        if method in ("GET", "HEAD") and (path in ("/", "/tei") or path.endswith("models/rerank")):
            continue  # Health checks of TEI's clients, and the details of a model.
        with connected(server) as connection:
            connection.request(method, path, b"{}" if method != "HEAD" else None)
            reply = connection.getresponse()
            said = reply.read()

        assert reply.status == 405, f"{method} {path}: {reply.status}"
        assert "POST" in reply.headers["allow"], path
        if method != "HEAD":
            conforms(spec, 405, json.loads(said))


def test_extra_slashes_are_ignored(line: HTTPConnection) -> None:
    for spec in ROUTES:
        path = path_of(spec)
        for spelled in (f"{path}/", f"/{path}", path.replace("/", "//"), f"{path}///"):
            status, answer = sent(line, "POST", spelled, plain(example_of(spec)))

            assert status == 200, f"{spelled}: {answer}"


@pytest.mark.parametrize("rest", ["nothing", "v1/nothing", "v1/rerank/more", "v3", "%00", "%F0%9F"])
def test_an_unknown_path_under_a_prefix_gets_its_error_format(
    rest: str, line: HTTPConnection
) -> None:
    for dialect in DIALECTS:
        status, answer = sent(line, "POST", f"{dialect.prefix}/{rest}", b"{}")

        assert status == 404, f"{dialect.prefix}/{rest}: {answer}"
        failures = [one.failure for one in DIALECTS if one.name == dialect.name]
        assert fits(answer, tuple(failures)), f"{dialect.prefix}/{rest}: {answer}"


@contextmanager
def connected(server: Server) -> Iterator[HTTPConnection]:
    connection = HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    try:
        yield connection
    finally:
        connection.close()


def sent(
    connection: HTTPConnection,
    method: str,
    path: str,
    body: bytes,
    headers: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, Any]:
    connection.request(method, path, body, {"content-type": "application/json", **headers})
    reply = connection.getresponse()
    said = reply.read()
    assert reply.headers["content-type"] == "application/json", f"{path}: {said[:200]!r}"
    assert "set-cookie" not in reply.headers
    return reply.status, json.loads(said)


def conforms(spec: RouteSpec, status: int, answer: Any) -> None:
    if status != 200:
        assert {"message", "detail", "error"} <= answer.keys(), f"{spec.path}: {answer}"
        assert answer["message"], spec.path
    models = spec.responses if status == 200 else spec.failures
    assert fits(answer, models), f"{spec.path}: {status} {str(answer)[:500]}"


def fits(answer: Any, models: tuple[Any, ...]) -> bool:
    """Whether an answer matches one of the models, without additional fields."""
    return any(validator(model).is_valid(answer) for model in models)


@cache
def validator(model: Any) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(closed(TypeAdapter(model).json_schema()))


def path_of(spec: RouteSpec) -> str:
    return re.sub("{.*}", "some/model", spec.path)


def example_of(spec: RouteSpec) -> Json:
    return example(spec.requests)


@cache
def example(requests: tuple[Any, ...]) -> Json:
    return next(examples(body_of(*requests)))


def with_wrong_values(request: Any) -> Iterator[Json]:
    """The example of a request with one wrong field at a time, also in nested objects."""
    schema = body_of(request)["requestBody"]["content"]["application/json"]["schema"]
    good = schema["example"]
    for name, field in schema["properties"].items():
        for value in WRONG:
            yield {**good, name: value}
            inner = [part for node in shapes_in(field) for part in node.get("properties", ())]
            if isinstance(good.get(name, {}), dict):
                yield from ({**good, name: {**good.get(name, {}), part: value}} for part in inner)
