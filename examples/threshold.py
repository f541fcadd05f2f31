"""Show only passages that answer the question, by a calibrated threshold.

    rankd calibrate data/judged.jsonl --url http://127.0.0.1:8000 --write calibrated.toml
    python threshold.py calibrated.toml "Do you sell helmets?"

A server with `--config calibrated.toml` applies the threshold to all requests.
"""

import json
import os
import sys
import tomllib
from pathlib import Path

from rankd.client import Client

URL = os.environ.get("RERANK_URL", "http://127.0.0.1:8000")
CORPUS = Path(__file__).parent / "data" / "corpus.jsonl"


def main(calibrated: str, query: str) -> None:
    settings = tomllib.loads(Path(calibrated).read_text(encoding="utf-8"))
    threshold = settings["calibration"]["default"]["threshold"]
    rows = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]

    with Client(URL, api_key=os.environ.get("RERANK_API_KEY")) as client:
        answer = client.rerank(query, [row["text"] for row in rows], score_threshold=threshold)

    for result in answer.results:
        print(f"{result.relevance_score:.3f} {rows[result.index]['id']}")
    if not answer.results:
        print(f"Nothing here answers that: all {len(rows)} passages are below {threshold}.")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
