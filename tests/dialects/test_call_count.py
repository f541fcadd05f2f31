"""How many calls one small request takes: a bound, so that layers do not pile up unseen.

`support/call_count.py` says what is counted, and `bench/calls.py` prints it by module.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from rankd.config.settings import Settings
from rankd.server.app import open_app
from support.call_count import count_calls
from support.checkpoints import make_checkpoint

BODY = {
    "query": "What is the capital of China?",
    "documents": ["The capital of China is Beijing.", "Gravity attracts two bodies."],
}


@pytest.mark.anyio
async def test_a_request_with_two_documents_takes_200_calls_and_60_hops_at_most(
    tmp_path: Path,
) -> None:
    """The whole ASGI app with default settings and the fake engine, from entry to answer.

    Calls are those of functions in `src/rankd`, counted with `sys.setprofile` on the thread of
    the event loop, tasks on the loop included. A hop is a call from another module of rankd.
    """
    model = str(make_checkpoint(tmp_path / "model", hidden=32, layers=1, heads=1))
    async with open_app(Settings(model=model, engine="fake")) as app:
        count = await count_calls(app, "/v1/rerank", BODY)

    assert 0 < count.calls.total() <= 200, count.calls.most_common()
    assert 0 < count.hops.total() <= 60, count.hops.most_common()
