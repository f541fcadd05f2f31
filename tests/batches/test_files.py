"""Uploading, listing, reading, limiting and deleting files."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jobs import Client, gate_engine, jsonl, line, open_client

pytestmark = pytest.mark.anyio

FORM = {"content-type": "multipart/form-data; boundary=xx"}


def part(name: str, content: bytes = b"batch", more: str = "") -> bytes:
    head = f'--xx\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


async def test_a_file_can_be_uploaded_listed_read_and_deleted(tmp_path: Path) -> None:
    content = jsonl([line("a")]) + bytes(range(256)) * 40_000  # Ten blocks of any bytes.
    async with open_client(tmp_path) as client:
        file = (await client.upload(content)).json()
        found = await client.get(f"/v1/files/{file['id']}")
        listed = await client.get("/v1/files?purpose=batch")
        read = await client.http.get(f"/v1/files/{file['id']}/content")
        deleted = await client.http.delete(f"/v1/files/{file['id']}")
        gone = [
            await client.http.get(f"/v1/files/{file['id']}"),
            await client.http.get(f"/v1/files/{file['id']}/content"),
            await client.http.delete(f"/v1/files/{file['id']}"),
        ]
        left = list((tmp_path / "files").iterdir())

    assert file["object"] == "file"
    assert (file["purpose"], file["filename"]) == ("batch", "requests.jsonl")
    assert file["bytes"] == len(content)
    assert file["expires_at"] == file["created_at"] + 30 * 86_400
    assert found == file
    assert listed["data"] == [file]
    assert read.content == content
    assert deleted.json() == {"id": file["id"], "object": "file", "deleted": True}
    assert [reply.status_code for reply in gone] == [404] * 3
    assert left == []


async def test_files_are_listed_in_pages_in_either_order(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        names = [(await client.upload(b"{}")).json()["id"] for _ in range(4)]
        newest = await client.get("/v1/files?limit=3")
        rest = await client.get(f"/v1/files?limit=3&after={newest['last_id']}")
        oldest = await client.get(f"/v1/files?order=asc&after={names[1]}")
        outputs = await client.get("/v1/files?purpose=batch_output")
        wrong = await client.http.get("/v1/files?order=up")

    assert [file["id"] for file in newest["data"]] == names[:0:-1]
    assert [file["id"] for file in rest["data"]] == names[:1]
    assert (newest["has_more"], rest["has_more"]) == (True, False)
    assert [file["id"] for file in oldest["data"]] == names[2:]
    assert outputs["data"] == []
    assert wrong.status_code == 400


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (part("purpose") + b"--xx--", "file is missing"),
        (part("file", b"{}") + b"--xx--", "purpose is missing"),
        (part("purpose", b"fine-tune") + part("file", b"{}") + b"--xx--", "must be batch"),
        (part("purpose") + part("file", b"") + b"--xx--", "empty"),
        (part("purpose") + part("file", b"{}"), "incomplete"),
        (part("file", b"{}") * 2 + b"--xx--", "two files"),
        (part("purpose") * 2 + b"--xx--", "twice"),
        (part("purpose", b"b" * 20_000) + b"--xx--", "10,000 bytes"),
        (b"no form at all", "cannot be read"),
        (b"".join(part(f"f{number}") for number in range(30)) + b"--xx--", "20 fields"),
    ],
    ids=range(10),
)
async def test_an_invalid_form_is_refused_and_nothing_is_stored(
    body: bytes, message: str, tmp_path: Path
) -> None:
    async with open_client(tmp_path) as client:
        reply = await client.http.post("/v1/files", content=body, headers=FORM)
        left = list((tmp_path / "files").iterdir())

    assert reply.status_code == 400
    assert message in reply.json()["error"]["message"]
    assert left == []


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", ""])
async def test_a_body_that_is_not_a_form_is_refused(kind: str, tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        reply = await client.http.post(
            "/v1/files", content=b"{}", headers={"content-type": kind} if kind else {}
        )

    assert reply.status_code == 400
    assert "multipart/form-data" in reply.json()["error"]["message"]


async def test_a_compressed_form_is_refused(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        reply = await client.http.post(
            "/v1/files", content=b"x", headers=FORM | {"content-encoding": "gzip"}
        )

    assert reply.status_code == 415


async def test_a_file_may_exceed_the_request_limit_but_not_its_own(
    tmp_path: Path,
) -> None:
    limits: dict[str, Any] = {"max_body_bytes": 2048, "batch_file_bytes": 3_000_000}
    async with open_client(tmp_path, **limits) as client:
        large = await client.upload(b"x" * 2_999_999)
        larger = await client.upload(b"x" * 3_000_001)
        left = list((tmp_path / "files").iterdir())

    assert large.status_code == 200
    assert larger.status_code == 413
    assert "3,000,000" in larger.json()["error"]["message"]
    assert len(left) == 1


async def test_the_limit_of_all_files_counts_uploads_in_progress(tmp_path: Path) -> None:
    async with open_client(tmp_path, batch_file_bytes=5_000_000, stored_files=1) as client:
        replies = await asyncio.gather(*(client.upload(b"x" * 2_000_000) for _ in range(4)))
        statuses = sorted(reply.status_code for reply in replies)
        [refused, *_] = [reply for reply in replies if reply.status_code == 413]
        for file in (await client.get("/v1/files"))["data"]:
            await client.http.delete(f"/v1/files/{file['id']}")
        again = await client.upload(b"x" * 4_000_000)

    assert statuses.count(200) <= 2
    assert statuses.count(413) >= 2
    assert "delete some" in refused.json()["error"]["message"]
    assert again.status_code == 200


async def test_the_limit_of_all_files_counts_uploads_that_end_meanwhile(tmp_path: Path) -> None:
    started, stored = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield part("purpose") + part("file", b"x")[:-2]
        started.set()
        await stored.wait()
        yield b"x" * 2_500_000 + b"\r\n--xx--"

    async with open_client(tmp_path, batch_file_bytes=5_000_000, stored_files=1) as client:
        first = asyncio.ensure_future(client.http.post("/v1/files", content=slow(), headers=FORM))
        await started.wait()
        second = await client.upload(b"x" * 3_000_000)
        stored.set()
        late = await first

    assert (second.status_code, late.status_code) == (200, 413)


async def test_a_file_whose_bytes_are_missing_is_a_404(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        file = (await client.upload(b"{}")).json()["id"]
        (tmp_path / "files" / file).unlink()
        reply = await client.http.get(f"/v1/files/{file}/content")

    assert reply.status_code == 404


async def test_the_input_of_an_unfinished_job_is_not_deleted(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        gate = gate_engine(client)
        job = await client.start_job([line("a")])
        early = await client.http.delete(f"/v1/files/{job['input_file_id']}")
        gate.release()
        await client.wait_until_ended(job["id"])
        late = await client.http.delete(f"/v1/files/{job['input_file_id']}")

    assert early.status_code == 400
    assert job["id"] in early.json()["error"]["message"]
    assert late.status_code == 200


async def test_expires_after_sets_when_a_file_expires(tmp_path: Path) -> None:
    expiry = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    async with open_client(tmp_path) as client:
        short = (await client.upload(b"{}", **expiry)).json()
        wrong = [
            await client.upload(b"{}", **expiry | {"expires_after[seconds]": "12"}),
            await client.upload(b"{}", **expiry | {"expires_after[seconds]": "soon"}),
            await client.upload(b"{}", **{"expires_after[seconds]": "3600"}),
        ]
        job = await client.start_job(
            [line("a")], output_expires_after={"anchor": "created_at", "seconds": 7200}
        )
        done = await client.wait_until_ended(job["id"])
        output = await client.get(f"/v1/files/{done['output_file_id']}")

    assert short["expires_at"] == short["created_at"] + 3600
    assert [reply.status_code for reply in wrong] == [400] * 3
    assert output["expires_at"] == output["created_at"] + 7200


async def test_expired_files_are_deleted_from_disk(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        job = await client.start_job([line("a")])
        await client.wait_until_ended(job["id"])
        other = (await client.upload(b"{}")).json()["id"]
        _expire(tmp_path, job["input_file_id"])
        hidden = await client.http.get(f"/v1/files/{job['input_file_id']}")
        await client.app.state.batches.delete_expired()
        left = {path.name for path in (tmp_path / "files").iterdir()}

    assert hidden.status_code == 404
    assert other in left
    assert job["input_file_id"] not in left


async def test_old_jobs_are_deleted(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        job = await client.start_job([line("a")])
        await client.wait_until_ended(job["id"])
        with sqlite3.connect(tmp_path / "batches.db") as database:
            database.execute("UPDATE batches SET created_at = created_at - 31 * 86400")
        database.close()
        await client.app.state.batches.delete_expired()
        reply = await client.http.get(f"/v1/batches/{job['id']}")

    assert reply.status_code == 404


async def test_partial_uploads_of_a_killed_server_are_deleted_at_start(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        kept = (await client.upload(b"{}")).json()["id"]
    for name in "file-half.part", "file-unnamed":
        (tmp_path / "files" / name).write_bytes(b"half")
    async with open_client(tmp_path):
        left = [path.name for path in (tmp_path / "files").iterdir()]

    assert left == [kept]


async def test_an_upload_whose_client_disconnects_is_deleted(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        await _send(client, [part("file", b"x" * 100)[:-2]], {"type": "http.disconnect"})
        left = list((tmp_path / "files").iterdir())

    assert left == []


async def test_an_upload_that_stalls_is_a_408(tmp_path: Path) -> None:
    async def trickling() -> AsyncIterator[bytes]:
        yield part("file", b"x" * 100)[:-2]
        while True:
            await asyncio.sleep(0.1)
            yield b"x"

    async with open_client(tmp_path, read_timeout_seconds=0.5) as client:
        reply = await client.http.post("/v1/files", content=trickling(), headers=FORM)
        left = list((tmp_path / "files").iterdir())

    assert reply.status_code == 408
    assert left == []


async def _send(client: Client, chunks: list[bytes], last: dict[str, Any]) -> None:
    """An upload as ASGI messages, because httpx cannot break one off."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    messages.append(last)

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else last

    async def send(message: Any) -> None:
        """Ignore the response."""

    request = httpx.Request("POST", "http://rankd/v1/files", headers=FORM)
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/files",
        "raw_path": b"/v1/files",
        "query_string": b"",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
    }
    await client.app(scope, receive, send)


def _expire(directory: Path, file: str) -> None:
    with sqlite3.connect(directory / "batches.db") as database:
        database.execute("UPDATE files SET expires_at = 1 WHERE id = ?", (file,))
    database.close()
