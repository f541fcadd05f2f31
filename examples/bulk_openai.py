"""Rerank a file of requests as a job of OpenAI's batch API; the job survives this program.

    rankd serve --batch-dir jobs
    python bulk_openai.py requests.jsonl ranked.jsonl

Scores and order equal those of bulk_client.py. Jobs have lower priority than other requests.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from openai import OpenAI

URL = os.environ.get("RERANK_URL", "http://127.0.0.1:8000")


def request_line(request: dict[str, Any]) -> str:
    body = {"query": request["query"], "documents": request["documents"]}
    line = {"custom_id": request["id"], "method": "POST", "url": "/v1/rerank", "body": body}
    return json.dumps(line, ensure_ascii=False)


def answer_line(line: str) -> str:
    answer = json.loads(line)
    body = answer["response"]["body"]
    if answer["response"]["status_code"] != 200:
        row = {"id": answer["custom_id"], "error": body["error"]["message"]}
    else:
        ranked = [
            {"index": one["index"], "score": one["relevance_score"]} for one in body["results"]
        ]
        row = {"id": answer["custom_id"], "ranked": ranked}
    return json.dumps(row, ensure_ascii=False)


def main(source: str, target: str) -> None:
    client = OpenAI(base_url=f"{URL}/v1", api_key=os.environ.get("RERANK_API_KEY", "any"))
    requests = Path(source).read_text(encoding="utf-8").splitlines()
    lines = "\n".join(request_line(json.loads(line)) for line in requests)
    file = client.files.create(file=("requests.jsonl", lines.encode()), purpose="batch")
    job = client.batches.create(
        input_file_id=file.id, endpoint="/v1/rerank", completion_window="24h"
    )
    print(f"job {job.id}", file=sys.stderr)

    while job.status in ("validating", "in_progress", "finalizing"):
        time.sleep(1)
        job = client.batches.retrieve(job.id)

    if job.status != "completed":
        sys.exit(f"the job is {job.status}: {job.errors}")
    # Refused lines are in the error file. Either file may be missing.
    answers = [
        line
        for name in (job.output_file_id, job.error_file_id)
        if name
        for line in client.files.content(name).text.splitlines()
    ]
    Path(target).write_text("".join(answer_line(line) + "\n" for line in answers), encoding="utf-8")
    counts = job.request_counts
    print(f"{counts.total} requests, {counts.failed} of them failed", file=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
