"""Effect of clients that format the prompt themselves: the table of docs/prompt.md.

    python bench/client_prompts.py [--model builtin|FOLDER|HUB-ID]

Seventy queries with one right and two wrong documents each, sent to the server in eight ways: once
scored as sent (`--client-prompts warn`), once with the default `unwrap`. A way whose whole frame is
taken off has the figures of plain texts; of the others, nothing is changed but the warning.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

import orjson

from prompt import FIGURES, figures, triples

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from rankd.config.settings import Settings
from rankd.dialects.asgi_client import AsgiClient
from rankd.server.app import open_app
from support.client_prompts import WAYS, Way

MODES = {"scored as sent": "warn", "with `unwrap`": "unwrap"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="builtin", help="a checkpoint that rankd serves")
    options = parser.parse_args()
    for title, mode in MODES.items():
        print(f"\n| {title} | {FIGURES} | warned |")
        print("|---|---|---|---|---|---|---|")
        asyncio.run(_table(options.model, mode))


async def _table(model: str, mode: str) -> None:
    settings = Settings(model=model, client_prompts=mode, self_check="off", log_level="error")
    async with open_app(settings) as app:
        client = AsgiClient(app)
        for name, way in WAYS.items():
            answers = [await _logits(client, way, triple) for triple in triples()]
            logits = [logit for logits, _ in answers for logit in logits]
            warned = sum(warned for _, warned in answers)
            print(f"| {name} | {figures(logits)} | {warned} of {len(answers)} |", flush=True)


async def _logits(client: AsgiClient, way: Way, triple: dict[str, str]) -> tuple[list[float], bool]:
    """The logits of a triple's documents, in its order, and whether the answer has a warning."""
    body = way.body(triple["query"], [triple["right"], *triple["wrong"]]) | {"raw_scores": True}
    reply = await client.request(
        "POST", "/v1/rerank", orjson.dumps(body), {"content-type": "application/json"}
    )
    assert reply.status == 200, reply.body
    results = sorted(orjson.loads(reply.body)["results"], key=lambda result: result["index"])
    return [result["relevance_score"] for result in results], "x-rankd-warnings" in reply.headers


if __name__ == "__main__":
    main()
