"""Show each result as soon as it is scored, and the order at the end.

Many documents take seconds on a slow machine; the first lines arrive at once.
"""

import json
import os
import sys
from pathlib import Path

import httpx

URL = os.environ.get("RERANK_URL", "http://127.0.0.1:8000")
CORPUS = Path(__file__).parent / "data" / "corpus.jsonl"


def main(query: str) -> None:
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    body = {"query": query, "documents": [row["text"] for row in rows], "top_n": 3}
    headers = {
        "Accept": "application/x-ndjson",
        "Authorization": f"Bearer {os.environ.get('RERANK_API_KEY', 'any')}",
    }
    with httpx.stream("POST", f"{URL}/v1/rerank", json=body, headers=headers, timeout=60) as reply:
        if reply.status_code != 200:
            sys.exit(f"{reply.status_code}: {reply.read().decode()}")
        last = {}
        for line in reply.iter_lines():
            last = json.loads(line)
            if "index" in last:
                print(f"{last['relevance_score']:.3f} {rows[last['index']]['id']}", flush=True)

    # The last line is the ordinary response, or an error.
    if "results" not in last:
        sys.exit(f"incomplete: {last}")
    best = [rows[result["index"]]["id"] for result in last["results"]]
    print(f"best: {', '.join(best)}")


if __name__ == "__main__":
    main(*sys.argv[1:] or ["刹车响怎么办?"])
