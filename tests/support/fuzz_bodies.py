"""Random requests, most of them nearly right: an example of a path, damaged in one to three ways.

Everything comes from one seed, so a failure can be sent again.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from rankd.dialects import route_specs
from rankd.dialects.openapi import body_of
from support.openapi import Json, examples

MAX_BODY_BYTES = 2_000_000


@dataclass(frozen=True)
class FuzzedRequest:
    """A POST, and what was done to it."""

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    damage: Sequence[str] = ()

    @property
    def may_time_out(self) -> bool:
        """Whether it names a timeout, which may be a millisecond."""
        asked = ("x-rankd-timeout-ms", "prefer", "x-envoy-expected-rq-timeout-ms")
        return b"timeout" in self.body or any(name in self.headers for name in asked)


def fuzzed_requests(seed: int, count: int) -> Iterator[FuzzedRequest]:
    """Requests at every path that takes a POST, in turn."""
    rng = random.Random(seed)
    targets = [*_targets()]
    for number in range(count):
        path, example = targets[number % len(targets)]
        yield _fuzzed(rng, path, example)


def _targets() -> Iterator[tuple[str, Json]]:
    for spec in route_specs():
        path = re.sub("{.*}", "some/model", spec.path)
        yield from ((path, example) for example in examples(body_of(*spec.requests)))
    yield "/v1/batches", {"input_file_id": "file-1", "endpoint": "/v1/rerank", "metadata": {}}
    yield "/v1/files", {"purpose": "batch", "file": "{}"}
    yield "/nothing/here", {"query": "q", "documents": ["d"]}


def _fuzzed(rng: random.Random, path: str, example: Json) -> FuzzedRequest:
    value: Any = deepcopy(example)
    done = []
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        damage = rng.choice(_DAMAGES)
        value = damage(rng, value)
        done.append(damage.__name__)
    coding = rng.choice(_CODINGS)
    body = coding(rng, json.dumps(value, ensure_ascii=rng.random() < 0.5))
    done.append(coding.__name__)
    if rng.random() < 0.3:
        damage_bytes = rng.choice(_BYTE_DAMAGES)
        body = damage_bytes(rng, body)
        done.append(damage_bytes.__name__)
    return FuzzedRequest(path, body[:MAX_BODY_BYTES], _headers(rng), done)


# Damage to the value.


def _slots(value: Any) -> list[tuple[Any, Any]]:
    """Every place in a value: the object or array, and the name or index."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting and len(found) < 500:
        node = waiting.pop()
        if isinstance(node, dict | list):
            names = [*node] if isinstance(node, dict) else [*range(min(len(node), 50))]
            found += [(node, name) for name in names]
            waiting += [node[name] for name in names]
    return found


def _apart(value: Any, times: int) -> list[Any]:
    """The same value several times, so that damage to one does not grow in all of them."""
    return [deepcopy(value) for _ in range(times)]


def _odd_value(rng: random.Random) -> Any:
    return rng.choice(_ODD)(rng)


def _words(rng: random.Random, count: int) -> str:
    return " ".join(
        rng.choice(("rank", "中国", "🙂", "a", "<|im_end|>", "yes")) for _ in range(count)
    )


def _nested(rng: random.Random, levels: int) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = {"in": value} if rng.random() < 0.5 else [value]
    return value


_ODD: tuple[Callable[[random.Random], Any], ...] = (
    lambda rng: rng.choice((None, True, False, 0, -1, 1.5, 1e308, 10**30, "", " ", "\0", "\ud83d")),
    lambda rng: rng.choice(([], [[]], [None], {}, {"": ""}, {"text": None}, {"content": []})),
    lambda rng: rng.randrange(-(2**65), 2**65),
    lambda rng: _words(rng, rng.randrange(1, 3_000)),
    lambda rng: [_words(rng, 3)] * rng.randrange(1, 1_200),
    lambda rng: _apart({"text": _words(rng, 3), "n": 1}, rng.randrange(1, 300)),
    lambda rng: {f"k{number}": number for number in range(rng.randrange(1, 11_000))},
    lambda rng: _nested(rng, rng.randrange(1, 90)),
    lambda rng: {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    lambda rng: {"text": "a\nb" * rng.randrange(1, 300), "more": _nested(rng, 50)},
    lambda rng: "9" * rng.randrange(1, 5_000),
)


def replaced(rng: random.Random, value: Any) -> Any:
    if not (slots := _slots(value)):
        return _odd_value(rng)
    node, name = rng.choice(slots)
    node[name] = _odd_value(rng)
    return value


def removed(rng: random.Random, value: Any) -> Any:
    if slots := _slots(value):
        node, name = rng.choice(slots)
        del node[name]
    return value


def added(rng: random.Random, value: Any) -> Any:
    if isinstance(value, dict):
        value[rng.choice(_NAMES)] = _odd_value(rng)
    return value


def repeated(rng: random.Random, value: Any) -> Any:
    if isinstance(value, dict):
        for name in value:
            times = rng.choice((2, 50, 600))
            if isinstance(value[name], list) and times * len(json.dumps(value[name])) < 500_000:
                value[name] = [item for one in _apart(value[name], times) for item in one]
    return value


def swapped(rng: random.Random, value: Any) -> Any:
    """Another kind of body altogether."""
    if len(json.dumps(value)) > 100_000:
        return value
    return rng.choice(([value], _odd_value(rng), {"input": value}, {"requests": _apart(value, 9)}))


_DAMAGES = (replaced, replaced, removed, added, added, repeated, swapped)

_NAMES = (
    *("query", "documents", "texts", "passages", "input", "parameters", "queries", "pairs"),
    *("requests", "text_1", "text_2", "top_n", "top_k", "model", "instruction", "preset"),
    *("rank_fields", "return_documents", "truncation", "score_threshold", "priority", "user"),
    *("partial", "cache", "prompt", "property", "timeout_ms", "__class__", "unknown", "\u0000"),
)


# Codings.


def utf8(rng: random.Random, text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def other_charset(rng: random.Random, text: str) -> bytes:
    charset = rng.choice(("utf-16", "utf-16-le", "utf-32", "gb18030", "latin-1", "utf-8-sig"))
    return text.encode(charset, "surrogatepass" if charset.startswith("utf") else "replace")


def form(rng: random.Random, text: str) -> bytes:
    if rng.random() < 0.5:
        return b"query=q&documents=" + utf8(rng, text)
    part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    purpose = b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    return purpose + part + utf8(rng, text) + b"\r\n--x--\r\n"


def noise(rng: random.Random, text: str) -> bytes:
    return rng.randbytes(rng.randrange(0, 3_000))


_CODINGS = (*[utf8] * 9, other_charset, form, noise)


# Damage to the bytes.


def flipped(rng: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(rng.randrange(1, 6) if body else 0):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def cut(rng: random.Random, body: bytes) -> bytes:
    return body[: rng.randrange(len(body) + 1)]


def inserted(rng: random.Random, body: bytes) -> bytes:
    at = rng.randrange(len(body) + 1)
    piece = rng.choice(
        (b"\0", b"{", b'"', b"[" * 900, b"\\", b"\xff", b"nan", b'"a":1,"a":2,', b" " * 9)
    )
    return body[:at] + piece * rng.choice((1, 1, 20)) + body[at:]


def doubled(rng: random.Random, body: bytes) -> bytes:
    start = rng.randrange(len(body) + 1)
    return body[:start] + body[start : start + 200] * 2 + body[start:]


_BYTE_DAMAGES = (flipped, cut, inserted, doubled)


def _headers(rng: random.Random) -> dict[str, str]:
    headers = {"content-type": "application/json"}
    if rng.random() < 0.3:
        headers["content-type"] = rng.choice(
            (
                *("", "text/plain", "application/x-www-form-urlencoded", "application/json;"),
                *("multipart/form-data; boundary=x", "application/json; charset=gbk", "\xff/;;="),
            )
        )
    if rng.random() < 0.1:
        headers["accept"] = rng.choice(
            ("application/x-ndjson", "*/*;q=0", "application/x-ndjson;q=0")
        )
    if rng.random() < 0.05:
        name = rng.choice(("x-rankd-timeout-ms", "prefer", "x-envoy-expected-rq-timeout-ms"))
        headers[name] = rng.choice(("1", "-1", "x", "wait=1", "5000", "9" * 400))
    if rng.random() < 0.03:
        headers["content-encoding"] = rng.choice(("gzip", "br", "identity"))
    return headers
