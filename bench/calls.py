"""Calls of rankd's functions for one two-document request on the fake engine, by module.

    python bench/calls.py

`tests/support/call_count.py` says what is counted; a test holds the bound.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from server import ROOT

sys.path.insert(0, str(ROOT / "tests"))

from rankd.config.settings import Settings
from rankd.server.app import open_app
from support.call_count import CallCount, count_calls
from support.checkpoints import make_checkpoint


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="rankd-bench-") as folder:
        model = make_checkpoint(Path(folder) / "model", hidden=32, layers=1, heads=1)
        count = asyncio.run(measure(str(model)))
    print(f"{count.calls.total()} calls, {count.hops.total()} hops between modules\n")
    print("| module | calls | hops into it |")
    print("|---|---|---|")
    for module, calls in count.calls.most_common():
        hops = sum(number for (_, called), number in count.hops.items() if called == module)
        print(f"| {module} | {calls} | {hops} |")


async def measure(model: str) -> CallCount:
    body = {
        "query": "What is the capital of China?",
        "documents": ["The capital of China is Beijing.", "Gravity attracts two bodies."],
    }
    async with open_app(Settings(model=model, engine="fake")) as app:
        return await count_calls(app, "/v1/rerank", body)


if __name__ == "__main__":
    main()
