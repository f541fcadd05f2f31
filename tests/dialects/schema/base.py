"""How a vendor's published schema is stated, and how a JSON value is held against it.

A shape is a type, a value, `[item shape]`, `{field: shape}` for an object with exactly these
fields, or one of the classes below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

QUERY = "Who repairs bicycles in Utrecht?"
TEXTS = [
    "Ferries to Texel leave from Den Helder.",
    "Anna repairs bicycles in her shop in Utrecht.",
    "Bicycles are cheap in spring.",
]
OBJECTS = [{"id": str(index), "text": text} for index, text in enumerate(TEXTS)]
PICTURE = {"image": "https://example.com/picture.png"}


@dataclass(frozen=True)
class Maybe:
    """A field that some answers have; at least one answer of the tests must have it."""

    shape: Any


@dataclass(frozen=True)
class Never:
    """An optional field of the vendor's answers that rankd never sends."""

    shape: Any


@dataclass(frozen=True)
class OneOf:
    """Any of several shapes."""

    shapes: tuple[Any, ...]


@dataclass(frozen=True)
class Open:
    """An object with these fields and any others."""

    fields: Mapping[str, Any]


NUMBER = OneOf((int, float))


@dataclass(frozen=True)
class Field:
    """A field of a vendor's requests.

    Attributes:
        values: what the vendor accepts; rankd accepts each without a warning.
        required: the vendor refuses a request without it.
        invalid: what the vendor refuses, and rankd, too, with an error that names the field.
        lenient: what the vendor refuses and rankd accepts; docs/api.md lists the field.
        refused: what the vendor accepts and rankd refuses, with an error that names the field.
        may_be_ignored: rankd may also warn that it ignores the field.
    """

    values: tuple[Any, ...]
    required: bool = False
    invalid: tuple[Any, ...] = ()
    lenient: tuple[Any, ...] = ()
    refused: tuple[Any, ...] = ()
    may_be_ignored: bool = False


@dataclass(frozen=True)
class Call:
    """A POST.

    Attributes:
        path: the vendor's, with values for its parameters.
        fields: by name; a dot leads into an object.
        answer: shape of the answer.
        more: fields that rankd accepts and the vendor does not have; docs/api.md lists them.
        examples: further fields of a request, for answers with all their optional fields.
        told_by: field by which the dialect tells the call from another at the same path.
    """

    path: str
    fields: Mapping[str, Field]
    answer: Any
    more: frozenset[str] = frozenset()
    examples: tuple[Mapping[str, Any], ...] = ()
    told_by: str = ""

    def body(self, **changes: Any) -> dict[str, Any]:
        """A request with the required fields and these changes; a dot leads into an object."""
        body: dict[str, Any] = {}
        for name, one in self.fields.items():
            if one.required:
                put(body, name, one.values[0])
        for name, value in changes.items():
            put(body, name, value)
        return body


@dataclass(frozen=True)
class Schema:
    """A vendor's published API.

    Attributes:
        dialect: rankd's name for it, and the prefix of its paths.
        version: of the vendor's release or document.
        date: when it was published or read, as YYYY-MM.
        source: where it was read.
        errors: shape of the errors, by status.
        gets: shapes of the GET endpoints, by path.
    """

    dialect: str
    version: str
    date: str
    source: str
    calls: tuple[Call, ...]
    errors: Mapping[int, Any]
    gets: Mapping[str, Any] = field(default_factory=dict)


def put(body: dict[str, Any], name: str, value: Any) -> None:
    """Sets a field; a dot in its name leads into an object."""
    *parents, last = name.split(".")
    for parent in parents:
        body = body.setdefault(parent, {})
    body[last] = deepcopy(value)


def without(body: dict[str, Any], name: str) -> dict[str, Any]:
    """A copy without a field."""
    copied = deepcopy(body)
    *parents, last = name.split(".")
    inner = copied
    for parent in parents:
        inner = inner[parent]
    del inner[last]
    return copied


def differences(value: Any, shape: Any, seen: set[str], where: str = "") -> Iterator[str]:
    """How a JSON value differs from a shape.

    Args:
        seen: gets the path of every optional field that the value has.
    """
    match shape:
        case OneOf():
            if all(list(differences(value, one, set(), where)) for one in shape.shapes):
                yield f"{where} is {value!r}"
        case Open():
            known = {name: value[name] for name in shape.fields if name in value}
            yield from differences(known, shape.fields, seen, where)
        case Mapping():
            yield from _object_differences(value, shape, seen, where)
        case [item]:
            if not isinstance(value, list):
                yield f"{where} is {value!r}, not an array"
                return
            for one in value:
                yield from differences(one, item, seen, f"{where}[]")
        case type() if shape is not Any:
            if type(value) is not shape:
                yield f"{where} is {value!r}, not {shape.__name__}"
        case _:
            if shape is not Any and value != shape:
                yield f"{where} is {value!r}, not {shape!r}"


def _object_differences(
    value: Any, shape: Mapping[str, Any], seen: set[str], where: str
) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is {value!r}, not an object"
        return
    yield from (f"{where}.{name} is not published" for name in value.keys() - shape.keys())
    for name, inner in shape.items():
        path = f"{where}.{name}"
        if isinstance(inner, Never):
            if name in value:
                yield f"{path} is stated as never sent"
        elif isinstance(inner, Maybe):
            if name in value:
                seen.add(path)
                yield from differences(value[name], inner.shape, seen, path)
        elif name not in value:
            yield f"{path} is missing"
        else:
            yield from differences(value[name], inner, seen, path)


def optional_fields(shape: Any, where: str = "") -> Iterator[str]:
    """Paths of the fields that at least one answer must have."""
    match shape:
        case Open():
            yield from optional_fields(shape.fields, where)
        case Mapping():
            for name, inner in shape.items():
                path = f"{where}.{name}"
                if isinstance(inner, Maybe):
                    yield path
                    yield from optional_fields(inner.shape, path)
                elif not isinstance(inner, Never):
                    yield from optional_fields(inner, path)
        case [item]:
            yield from optional_fields(item, f"{where}[]")
