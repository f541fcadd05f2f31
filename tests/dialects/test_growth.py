"""No shape of a body costs more than its bytes allow: ten times the size, about ten times the CPU.

The whole way from bytes to a resolved request or an error is measured, errors rendered. Ratios are
of CPU time, the best of three; times below a millisecond are taken for a millisecond.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator

import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from support.calling import calling

# Ten times the size may cost this many times the CPU time, for noise, caches and the measurement
# of coverage. Quadratic time would be 100 times.
MAX_RATIO = 40

FLOOR_SECONDS = 0.002

# Type → body with about `size` parts of that shape.
Shape = Callable[[int], bytes]


def body(documents: str, more: str = "") -> bytes:
    return f'{{"query": "q", "documents": [{documents}]{more}}}'.encode()


def repeated(size: int, item: str) -> str:
    return ", ".join([item] * size)


def numbered(size: int, form: str) -> str:
    return ", ".join(form % number for number in range(size))


EMPTY = "[[]]"


def nested(size: int) -> str:
    """A record of texts, 60 levels deep."""
    inner = json.dumps({"a": "line\n" * size})
    return '{"a": ' * 60 + inner + "}" * 60


SHAPES: dict[str, tuple[Shape, int]] = {
    "fields of a document, one twice": (
        lambda size: body(
            '{{"text": "a", "m": {{{}, "zz": 1, "zz": 2}}}}'.format(numbered(size, '"k%d": 1'))
        ),
        4_000,
    ),
    "fields of a document": (
        lambda size: body('{{"text": "a", "m": {{{}}}}}'.format(numbered(size, '"k%d": 1'))),
        4_000,
    ),
    "every field twice": (
        lambda size: body('"a"', ', "m": {{{}}}'.format(repeated(size, '"a": 1'))),
        4_000,
    ),
    "unknown fields": (lambda size: body('"a"', ", " + numbered(size, '"k%d": 1')), 900),
    "too many fields": (lambda size: body('"a"', ", " + numbered(size, '"k%d": 1')), 11_000),
    "too many values": (lambda size: body(repeated(size, "[]")), 60_000),
    "arrays of arrays": (
        lambda size: body('"a"', f', "m": [{repeated(size, EMPTY)}]'),
        9_000,
    ),
    "too many documents": (lambda size: body(repeated(size, '"a"')), 4_000),
    "records": (lambda size: body(repeated(size, '{"a": {"b": ["c"]}}')), 90),
    "deep records": (lambda size: body(nested(size)), 2_000),
    "a record of many values": (
        lambda size: body(f'{{"a": {list(range(size))}}}'),
        4_000,
    ),
    "a long text": (lambda size: body('"%s"' % ("a b" * size)), 20_000),
    "a long query": (lambda size: body('"a"').replace(b'"q"', b'"%s"' % (b"a b" * size)), 20_000),
    "a text of escapes": (lambda size: body('"' + '\\"\\\\' * size + '"'), 20_000),
    "a text that never ends": (lambda size: body('"' + '\\"' * size), 20_000),
    "half a surrogate pair": (lambda size: body('"' + "a\\ud83d" * size + '"'), 20_000),
    "brackets without end": (lambda size: body("[" * size), 30_000),
    "a wrong value": (lambda size: body('"a"', f', "top_n": {[1] * size}'), 4_000),
    "a wrong choice": (
        lambda size: body('"a"', f', "truncation": {[[1] * 9] * (size // 9)}'),
        20_000,
    ),
    "wrong documents": (lambda size: body(repeated(size, "1")), 90),
    "wrong rank fields": (lambda size: body('"a"', f', "rank_fields": {[1] * size}'), 90),
    "a long name": (
        lambda size: body('"a"', ', "{}": 1, "{}": 2'.format("n" * size, "n" * size)),
        30_000,
    ),
    "Latin-1": (lambda size: body('"%s"' % ("e" * size)).replace(b"e", b"\xe9"), 30_000),
    "spaces": (lambda size: body('"a"' + " " * size, ', "m"' + " " * size + ": 1"), 60_000),
}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    settings = Settings(engine="fake", cache_mb=0)
    with calling(settings) as running:
        yield running


@pytest.mark.parametrize("name", SHAPES)
def test_ten_times_the_bytes_take_about_ten_times_the_cpu_time(
    name: str, client: TestClient
) -> None:
    shape, size = SHAPES[name]
    small, large = shape(size), shape(10 * size)
    assert 5 < len(large) / len(small) < 15

    ratio = cpu_seconds(client, large) / cpu_seconds(client, small)

    assert ratio <= MAX_RATIO, f"{len(small):,} → {len(large):,} bytes: {ratio:.0f} times the time"


def cpu_seconds(client: TestClient, content: bytes) -> float:
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        reply = client.post("/v1/rerank", content=content)
        best = min(best, time.process_time() - began)
        assert reply.status_code in (200, 400, 413), reply.text[:200]
    return max(best, FLOOR_SECONDS)
