"""Every dialect against its vendor's published schema (`schema/`), both ways.

What the vendor publishes is accepted, or refused by name; what rankd accepts beyond it is listed in
docs/api.md. An answer has the vendor's fields, each of the right type, and no others. An error may
have the fields that clients of other vendors read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from pydantic import AliasChoices, BaseModel
from schema import SCHEMAS
from schema.base import (
    Call,
    Maybe,
    Never,
    OneOf,
    Open,
    Schema,
    differences,
    optional_fields,
    without,
)

from rankd.config.settings import Settings
from rankd.dialects import route_specs
from rankd.dialects.registry import DIALECTS
from rankd.dialects.request import RequestBody
from support.calling import calling

API_PAGE = Path(__file__).parents[2] / "docs" / "api.md"

CALLS = [(schema, call) for schema in SCHEMAS for call in schema.calls]
GETS = [(schema, path) for schema in SCHEMAS for path in schema.gets]

# Fields of every error, for clients of other vendors.
ERROR_FIELDS = {"error", "error_type", "message", "detail", "request_id"}

# rankd's own names, and the two tutorials, which publish no schema.
UNPUBLISHED = {"openai", "simple", "plain"}

every_call = pytest.mark.parametrize(
    ("schema", "call"),
    CALLS,
    ids=[f"{number}-{schema.dialect}{call.path}" for number, (schema, call) in enumerate(CALLS)],
)
every_schema = pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.dialect)


def test_every_dialect_has_a_schema() -> None:
    dialects = {dialect.name for dialect in DIALECTS}

    assert dialects - UNPUBLISHED == {schema.dialect for schema in SCHEMAS}


@every_schema
def test_a_schema_says_what_it_is_from(schema: Schema) -> None:
    assert re.fullmatch(r"20\d\d-\d\d", schema.date)
    assert schema.version
    assert schema.source
    assert schema.calls
    assert 400 in schema.errors


@pytest.mark.parametrize(
    ("value", "shape", "difference"),
    [
        ({"a": 1}, {"a": str}, ".a is 1, not str"),
        ({"a": 1}, {"a": 2}, ".a is 1, not 2"),
        ({"a": 1}, {"a": int, "b": int}, ".b is missing"),
        ({"a": 1, "b": 1}, {"a": int}, ".b is not published"),
        ({"a": 1}, {"a": Never(int)}, ".a is stated as never sent"),
        ([{"a": 1.0}, {"a": 1}], [{"a": float}], "[].a is 1, not float"),
        ({"a": None}, {"a": Maybe(int)}, ".a is None, not int"),
        ("x", OneOf((int, None)), " is 'x'"),
        ({"b": 1}, Open({"a": int}), ".a is missing"),
        ([], {"a": int}, " is [], not an object"),
        ({}, [int], " is {}, not an array"),
        (True, int, " is True, not int"),
    ],
)
def test_a_difference_from_a_shape_is_found(value: Any, shape: Any, difference: str) -> None:
    assert list(differences(value, shape, set())) == [difference]


# Requests.


@every_call
def test_every_published_field_is_accepted(client: TestClient, schema: Schema, call: Call) -> None:
    assert warnings_of(client, schema, call, call.body()) == ""
    for name, field in call.fields.items():
        for value in field.values:
            warnings = warnings_of(client, schema, call, call.body(**{name: value}))
            if not field.may_be_ignored:
                assert "unknown field" not in warnings, (name, value)


@every_call
def test_what_the_vendor_refuses_is_refused_by_name(
    client: TestClient, schema: Schema, call: Call
) -> None:
    for name, field in call.fields.items():
        for value in (*field.invalid, *field.refused):
            problem = refusal(client, schema, call, call.body(**{name: value}))
            assert name.rsplit(".", 1)[-1] in problem, (value, problem)


@every_call
def test_a_required_field_must_be_there(client: TestClient, schema: Schema, call: Call) -> None:
    """But for the model: the server has one."""
    required = [name for name, field in call.fields.items() if field.required]
    assert required
    for name in required:
        body = without(call.body(), name)
        if name == "model":
            warnings_of(client, schema, call, body)
        elif name != call.told_by:
            assert name.rsplit(".", 1)[-1] in refusal(client, schema, call, body)


@every_call
def test_no_other_field_is_accepted(schema: Schema, call: Call) -> None:
    accepted = set(field_names(request_model(schema, call))) - common_fields()

    published = {name for one in schema.calls if one.path == call.path for name in one.fields}

    assert accepted - published == call.more


@every_call
def test_lenient_values_are_accepted(client: TestClient, schema: Schema, call: Call) -> None:
    for name, value in lenient_values(call):
        assert "unknown field" not in warnings_of(
            client, schema, call, call.body(**{name: value})
        ), (name, value)


def test_the_page_lists_every_leniency() -> None:
    text = API_PAGE.read_text(encoding="utf-8")
    section = text.split("\n## What is accepted beyond the vendors' schemas\n", 1)[1]
    section = section.split("\n## ", 1)[0]
    listed = {
        (dialect, name)
        for dialect, names in re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.MULTILINE)
        for name in re.findall(r"`([^`]+)`", names)
    }
    stated_fields = {
        (schema.dialect, name)
        for schema, call in CALLS
        for name in (*call.more, *(name for name, _ in lenient_values(call)))
    }

    assert listed == stated_fields


# Answers.


@every_call
def test_an_answer_has_the_published_fields(client: TestClient, schema: Schema, call: Call) -> None:
    seen: set[str] = set()
    for body in valid_bodies(call):
        answer = client.post(f"/{schema.dialect}{call.path}", json=body).json()
        assert list(differences(answer, call.answer, seen)) == [], body

    assert set(optional_fields(call.answer)) == seen


@every_schema
def test_errors_have_the_published_format(client: TestClient, schema: Schema) -> None:
    """Without a field; with a wrong key; with a model that a strict server does not have."""
    call = schema.calls[0]
    path = f"/{schema.dialect}{call.path}"
    query = next(name for name, field in call.fields.items() if field.required and "quer" in name)
    incomplete = without(call.body(), query)

    check_error(client.post(path, json=incomplete), schema, 400)
    with calling(Settings(engine="fake", api_keys=["sesame"])) as keyed:
        check_error(keyed.post(path, json=call.body()), schema, 401)
    with calling(Settings(engine="fake", strict_model=True)) as strict:
        name = next((name for name in call.fields if name.endswith("modelArn")), "model")
        check_error(strict.post(path, json=call.body(**{name: "no-such"})), schema, 404)


def check_error(reply: Any, schema: Schema, status: int) -> None:
    assert reply.status_code == status
    answer = reply.json()
    shape = schema.errors[status]
    own = {name: value for name, value in answer.items() if name not in ERROR_FIELDS - {*shape}}
    assert list(differences(own, shape, set())) == []


# GET endpoints.


@pytest.mark.parametrize(
    ("schema", "path"), GETS, ids=[f"{schema.dialect}{path}" for schema, path in GETS]
)
def test_a_get_has_the_published_fields(client: TestClient, schema: Schema, path: str) -> None:
    address = f"/{schema.dialect}{path}"
    reply = client.get(address)

    assert reply.is_success
    assert client.head(address).status_code == reply.status_code
    if (shape := schema.gets[path]) is not None:
        assert list(differences(reply.json(), shape, set())) == []


def test_every_get_under_a_prefix_is_stated() -> None:
    served = {
        f"{dialect.prefix}{route.path}"
        for dialect in DIALECTS
        if dialect.prefix_router is not None
        for route in dialect.prefix_router.routes
        if isinstance(route, APIRoute) and route.include_in_schema
    }
    stated_paths = [f"/{schema.dialect}{path}" for schema, path in GETS]

    assert served
    for path in served:
        pattern = re.sub(r"{.*}", ".+", path)
        assert any(re.fullmatch(pattern, one) for one in stated_paths), path


# Helpers.


def valid_bodies(call: Call) -> Iterator[dict[str, Any]]:
    """The smallest request, one with each value of each field, and one with all of them."""
    yield call.body()
    for name, field in call.fields.items():
        yield from (call.body(**{name: value}) for value in field.values)
    yield call.body(**{name: field.values[0] for name, field in call.fields.items()})
    for changes in call.examples:
        yield call.body(**changes)


def lenient_values(call: Call) -> Iterator[tuple[str, Any]]:
    for name, field in call.fields.items():
        yield from ((name, value) for value in field.lenient)


def warnings_of(client: TestClient, schema: Schema, call: Call, body: dict[str, Any]) -> str:
    """The warnings of an answer; asserts that there is one."""
    reply = client.post(f"/{schema.dialect}{call.path}", json=body)
    assert reply.status_code == 200, (body, reply.text)
    return reply.headers.get("x-rankd-warnings", "")


def refusal(client: TestClient, schema: Schema, call: Call, body: dict[str, Any]) -> str:
    """The message of a 400."""
    reply = client.post(f"/{schema.dialect}{call.path}", json=body)
    assert reply.status_code == 400, (body, reply.text)
    return str(reply.json()["message"])


def request_model(schema: Schema, call: Call) -> type[BaseModel]:
    """The model of the bodies that the dialect accepts at a path."""
    for spec in route_specs():
        pattern = re.sub(r"{.*?}", ".+", spec.route)
        if spec.prefix == schema.dialect and re.fullmatch(pattern, call.path):
            fitting: list[type[BaseModel]] = [
                model for model in spec.requests if model_fits(model, call)
            ]
            return fitting[0]
    raise AssertionError(f"nothing is served at {call.path} under /{schema.dialect}")


def model_fits(model: type[BaseModel], call: Call) -> bool:
    names = {name for name, field in call.fields.items() if field.required}
    return names <= set(field_names(model)) | common_fields()


def field_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The names of a model's fields as clients send them; a dot leads into an object."""
    for name, field in model.model_fields.items():
        alias = field.validation_alias or field.alias or name
        for sent in alias.choices if isinstance(alias, AliasChoices) else [alias]:
            nested = nested_model(field.annotation)
            if nested is None:
                yield f"{prefix}{sent}"
            else:
                yield from field_names(nested, f"{prefix}{sent}.")


def nested_model(annotation: Any) -> type[BaseModel] | None:
    members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else [annotation]
    models = [one for one in members if isinstance(one, type) and issubclass(one, BaseModel)]
    return models[0] if models else None


def common_fields() -> set[str]:
    """Fields that rankd accepts in every dialect."""
    return set(field_names(RequestBody))
