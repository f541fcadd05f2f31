"""OpenAI's SDK with batch jobs: upload, wait, read, list, cancel, delete."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import openai

from harness import DOCUMENTS, MODEL, QUERY, Server, case, eq, main, ranked, refused

CLIENT, PACKAGE, DIALECT = "openai.OpenAI batches", "openai", "OpenAI batches"

LINES = 40


def sync(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="any")


def requests(count: int = LINES, **more: Any) -> io.BytesIO:
    rows = [
        {
            "custom_id": f"line-{number}",
            "method": "POST",
            "url": "/v1/rerank",
            "body": {"model": MODEL, "query": QUERY, "documents": DOCUMENTS, **more},
        }
        for number in range(count)
    ]
    file = io.BytesIO("\n".join(map(json.dumps, rows)).encode())
    file.name = "requests.jsonl"
    return file


def begin(client: openai.OpenAI, file: io.BytesIO, **more: Any) -> Any:
    uploaded = client.files.create(file=file, purpose="batch")
    return client.batches.create(
        input_file_id=uploaded.id, endpoint="/v1/rerank", completion_window="24h", **more
    )


def ended(client: openai.OpenAI, job: Any) -> Any:
    began = time.monotonic()
    while job.status not in ("completed", "failed", "expired", "cancelled"):
        assert time.monotonic() - began < 120, job
        time.sleep(0.2)
        job = client.batches.retrieve(job.id)
    return job


@case(CLIENT, PACKAGE, DIALECT)
def uploads_waits_and_reads(server: Server) -> None:
    client = sync(server)
    job = ended(client, begin(client, requests(), metadata={"team": "search"}))

    eq(job.status, "completed")
    eq((job.request_counts.total, job.request_counts.completed), (LINES, LINES))
    eq(job.metadata, {"team": "search"})
    eq(job.error_file_id, None)
    rows = [json.loads(row) for row in client.files.content(job.output_file_id).text.splitlines()]
    eq([row["custom_id"] for row in rows], [f"line-{number}" for number in range(LINES)])
    for row in rows:
        eq(row["response"]["status_code"], 200)
        results = row["response"]["body"]["results"]
        ranked(
            [result["index"] for result in results],
            [result["relevance_score"] for result in results],
        )


@case(CLIENT, PACKAGE, DIALECT)
def reads_errors(server: Server) -> None:
    client = sync(server)
    job = ended(client, begin(client, requests(2, query="")))

    eq((job.request_counts.completed, job.request_counts.failed), (0, 2))
    eq(job.output_file_id, None)
    [first, _] = client.files.content(job.error_file_id).text.splitlines()
    eq(json.loads(first)["response"]["status_code"], 400)


@case(CLIENT, PACKAGE, DIALECT)
def learns_why_a_file_is_wrong(server: Server) -> None:
    client = sync(server)
    job = ended(client, begin(client, io.BytesIO(b"{nonsense")))

    eq(job.status, "failed")
    eq((job.errors.data[0].code, job.errors.data[0].line), ("invalid_json_line", 1))


@case(CLIENT, PACKAGE, DIALECT)
def cancels(server: Server) -> None:
    client = sync(server)
    job = begin(client, requests(5000))

    eq(client.batches.cancel(job.id).status, "cancelling")
    job = ended(client, job)
    eq(job.status, "cancelled")
    eq(job.request_counts.completed + job.request_counts.failed, job.request_counts.total)


@case(CLIENT, PACKAGE, DIALECT)
def lists_pages_and_deletes(server: Server) -> None:
    client = sync(server)
    jobs = [ended(client, begin(client, requests(1))) for _ in range(3)]

    found = [job.id for job in client.batches.list(limit=2)]
    assert found[:3] == [job.id for job in reversed(jobs)], found
    files = {file.id for file in client.files.list(purpose="batch", limit=2)}
    assert {job.input_file_id for job in jobs} <= files
    eq(client.files.retrieve(jobs[0].input_file_id).purpose, "batch")
    eq(client.files.delete(jobs[0].input_file_id).deleted, True)
    with refused(openai.NotFoundError, "no such file"):
        client.files.content(jobs[0].input_file_id)


@case(CLIENT, PACKAGE, DIALECT)
def keeps_files_for_a_while(server: Server) -> None:
    client = sync(server)
    file = client.files.create(
        file=requests(1),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )

    eq(file.expires_at, file.created_at + 3600)


@case(CLIENT, PACKAGE, DIALECT)
def with_a_key(server: Server) -> None:
    client = openai.OpenAI(base_url=server.keyed + "/v1", api_key=server.key)

    eq(ended(client, begin(client, requests(3))).request_counts.completed, 3)


@case("openai.AsyncOpenAI batches", PACKAGE, DIALECT)
async def async_too(server: Server) -> None:
    async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key="any") as client:
        file = await client.files.create(file=requests(1), purpose="batch")
        job = await client.batches.create(
            input_file_id=file.id, endpoint="/v1/rerank", completion_window="24h"
        )
        eq((await client.batches.retrieve(job.id)).id, job.id)


if __name__ == "__main__":
    main()
