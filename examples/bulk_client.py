"""Rerank a file of requests with rankd's client, several at a time: one line in, one line out.

    python bulk_client.py requests.jsonl ranked.jsonl

A refused request becomes a line with its error; the others are not affected.
"""

import json
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rankd.client import Client, RankdError, RerankResponse

URL = os.environ.get("RERANK_URL", "http://127.0.0.1:8000")
# Requests per call of `batch`, whose responses are held in memory; and requests in flight.
SLICE, CONCURRENCY = 1000, 16


def slices(file: Path) -> Iterator[list[dict[str, Any]]]:
    with file.open(encoding="utf-8") as lines:
        while part := [json.loads(line) for line in islice(lines, SLICE)]:
            yield part


def output_row(request: dict[str, Any], answer: RerankResponse | RankdError) -> dict[str, Any]:
    if isinstance(answer, RankdError):
        return {"id": request["id"], "error": str(answer), "status": answer.status}
    ranked = [{"index": one.index, "score": one.relevance_score} for one in answer.results]
    return {"id": request["id"], "ranked": ranked}


def main(source: str, target: str) -> None:
    done = failed = 0
    with (
        Client(URL, api_key=os.environ.get("RERANK_API_KEY")) as client,
        Path(target).open("w", encoding="utf-8") as out,
    ):
        for part in slices(Path(source)):
            requests = [{"query": row["query"], "documents": row["documents"]} for row in part]
            answers = client.batch(requests, concurrency=CONCURRENCY)
            for request, answer in zip(part, answers, strict=True):
                print(json.dumps(output_row(request, answer), ensure_ascii=False), file=out)
                done += 1
                failed += isinstance(answer, RankdError)
            print(f"{done} requests, {failed} of them failed", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
