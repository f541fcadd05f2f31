"""Counts the calls of rankd's functions while a request is answered, with `sys.setprofile`.

A call is a function that begins to run and whose code is in `src/rankd`. Not counted: resuming a
coroutine or generator that has begun, and the frames of comprehensions and generator expressions,
which belong to the function that holds them. A hop is a call whose caller, the nearest frame of
rankd's up the stack, is in another module. A task that asyncio starts has no caller.

Only the thread of the event loop is counted; the fake engine computes in it.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import orjson
from fastapi import FastAPI

import rankd
from rankd.dialects.asgi_client import AsgiClient

_ROOT = str(Path(rankd.__file__).parent)
_CLIENT = str(Path(_ROOT) / "dialects" / "asgi_client.py")
_EXPRESSIONS = frozenset({"<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})


@dataclass
class CallCount:
    """Calls by module, and hops by calling and called module; modules as paths in `src/rankd`."""

    calls: Counter[str] = field(default_factory=Counter)
    hops: Counter[tuple[str, str]] = field(default_factory=Counter)
    _frames: dict[int, FrameType] = field(default_factory=dict)

    def on_event(self, frame: FrameType, event: str, argument: Any) -> None:
        """A profile function, for `sys.setprofile`."""
        if event != "call" or not _is_counted(frame) or id(frame) in self._frames:
            return
        self._frames[id(frame)] = frame  # Keeps the frame, so that no other has its id.
        module = _module(frame)
        self.calls[module] += 1
        caller = frame.f_back
        while caller is not None and not _is_counted(caller):
            caller = caller.f_back
        if caller is not None and _module(caller) != module:
            self.hops[_module(caller), module] += 1


@contextmanager
def counting() -> Iterator[CallCount]:
    """Count the calls of this thread in the block."""
    count = CallCount()
    sys.setprofile(count.on_event)
    try:
        yield count
    finally:
        sys.setprofile(None)


async def count_calls(app: FastAPI, path: str, body: dict[str, Any]) -> CallCount:
    """The calls of one POST; one like it goes before, so that what is done once is not counted."""
    client, headers = AsgiClient(app), {"content-type": "application/json"}
    first = body | {"query": f"{body['query']} Really?"}
    assert (await client.request("POST", path, orjson.dumps(first), headers)).status == 200
    with counting() as count:
        response = await client.request("POST", path, orjson.dumps(body), headers)
    assert response.status == 200
    return count


def _is_counted(frame: FrameType) -> bool:
    code = frame.f_code
    return (
        code.co_filename.startswith(_ROOT)
        and code.co_filename != _CLIENT
        and code.co_name not in _EXPRESSIONS
    )


def _module(frame: FrameType) -> str:
    return str(Path(frame.f_code.co_filename).relative_to(_ROOT))
