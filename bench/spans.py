"""How well relevant spans find an answer in a long document, and what they cost: docs/spans.md.

    python bench/spans.py [--model builtin|FOLDER|HUB-ID] [--documents 30] [--rounds 5]

Each document has 20 sentences: the right passage of one of the project's triples (training/eval),
its two wrong passages, and passages of other questions in the same language, in random order. Half
of the documents are English, half Chinese. Scores come from the server, without its cache.

Costs are those of one request with one document, with and without `relevant_spans`: the tokens of
its pairs, and its time as a ratio, measured in turn and taken as the median over rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import orjson

from prompt import triples
from rankd.config.settings import Settings
from rankd.dialects.asgi_client import AsgiClient
from rankd.server.app import open_app

SENTENCES = 20
SEED = 11
JOINTS = {"en": " ", "zh": ""}


class Case(NamedTuple):
    """A query, a document, and where the answer stands in it: `document[start:end]`."""

    language: str
    query: str
    document: str
    start: int
    end: int


def cases(count: int) -> Iterator[Case]:
    dice = random.Random(SEED)
    rows = list(triples())
    for language, joint in JOINTS.items():
        own = [row for row in rows if row["lang"] == language]
        for row in dice.sample(own, count // len(JOINTS)):
            others = [text for other in own if other is not row for text in passages(other)]
            near = [row["right"], *row["wrong"]]
            parts = near + dice.sample(sorted(set(others)), SENTENCES - len(near))
            dice.shuffle(parts)
            document = joint.join(parts)
            start = len(joint.join([*parts[: parts.index(row["right"])], ""]))
            yield Case(language, row["query"], document, start, start + len(row["right"]))


def passages(row: dict[str, Any]) -> list[str]:
    return [row["right"], *row["wrong"]]


async def ask(client: AsgiClient, case: Case, **fields: Any) -> tuple[dict[str, Any], float]:
    """The answer, and the seconds that it took."""
    body = {"query": case.query, "documents": [case.document], "cache": False, **fields}
    began = time.perf_counter()
    reply = await client.request(
        "POST", "/v1/rerank", orjson.dumps(body), {"content-type": "application/json"}
    )
    seconds = time.perf_counter() - began
    assert reply.status == 200, reply.body
    return orjson.loads(reply.body), seconds


def rank_of_answer(case: Case, spans: list[dict[str, Any]]) -> int | None:
    """Rank of the first span inside the answer, from 1; None if there is none."""
    for rank, span in enumerate(spans, 1):
        if span["start"] < case.end and case.start < span["end"]:
            return rank
    return None


async def measure(model: str, count: int, rounds: int) -> None:
    settings = Settings(model=model, self_check="off", log_level="error")
    every = list(cases(count))
    ranks: dict[str, list[int | None]] = {language: [] for language in JOINTS}
    tokens: list[tuple[int, int]] = []
    async with open_app(settings) as app:
        client = AsgiClient(app)
        for case in every:
            plain, _ = await ask(client, case)
            answer, _ = await ask(client, case, relevant_spans={"threshold": 0})
            spans = answer["results"][0]["relevant_spans"]
            ranks[case.language].append(rank_of_answer(case, spans))
            tokens.append((plain["usage"]["prompt_tokens"], answer["usage"]["prompt_tokens"]))
        ratios = [await _ratio(client, every) for _ in range(rounds)]
    print("| documents | answer's sentence first | among the first three |")
    print("|---|---|---|")
    for name, found in {**ranks, "all": [*chain(*ranks.values())]}.items():
        first, three = (sum(rank is not None and rank <= n for rank in found) for n in (1, 3))
        print(f"| {name} | {first} of {len(found)} | {three} of {len(found)} |")
    plain_tokens, span_tokens = (statistics.mean(column) for column in zip(*tokens, strict=True))
    print(f"\ntokens of a document: {plain_tokens:.0f} plain, {span_tokens:.0f} with spans")
    print(f"tokens: {span_tokens / plain_tokens:.1f} times")
    shown = ", ".join(f"{ratio:.1f}" for ratio in sorted(ratios))
    print(f"time: {statistics.median(ratios):.1f} times (rounds: {shown})")


async def _ratio(client: AsgiClient, every: list[Case]) -> float:
    """Time with spans by time without, of all documents one after the other."""
    plain = spanned = 0.0
    for case in every:
        plain += (await ask(client, case))[1]
        spanned += (await ask(client, case, relevant_spans=True))[1]
    return spanned / plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="builtin", help="a checkpoint that rankd serves")
    parser.add_argument("--documents", type=int, default=30, help="half English, half Chinese [30]")
    parser.add_argument("--rounds", type=int, default=5, help="of the timing [5]")
    options = parser.parse_args()
    asyncio.run(measure(options.model, options.documents, options.rounds))


if __name__ == "__main__":
    main()
