"""What is uploaded is kept, found again, limited and deleted."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from jobs import Client, gated, jsonl, line, opened

pytestmark = pytest.mark.anyio

FORM = {"content-type": "multipart/form-data; boundary=xx"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def part(name: str, content: bytes = b"batch", more: str = "") -> bytes:
    head = f'--xx\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


async def test_a_file_is_kept_found_listed_read_and_deleted(tmp_path: Path) -> None:
    content = jsonl([line("a")]) + bytes(range(256)) * 40_000  # Ten blocks, any bytes.
    async with opened(tmp_path) as client:
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


async def test_files_are_listed_in_either_order_a_page_at_a_time(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        names = [(await client.upload(b"{}")).json()["id"] for _ in range(4)]
        newest = await client.get("/v1/files?limit=3")
        rest = await client.get(f"/v1/files?limit=3&after={newest['last_id']}")
        oldest = await client.get(f"/v1/files?order=asc&after={names[1]}")
        outputs = await client.get("/v1/files?purpose=batch_output")
        wrong = await client.http.get("/v1/files?order=up")

    assert [one["id"] for one in newest["data"]] == names[:0:-1]
    assert [one["id"] for one in rest["data"]] == names[:1]
    assert (newest["has_more"], rest["has_more"]) == (True, False)
    assert [one["id"] for one in oldest["data"]] == names[2:]
    assert outputs["data"] == []
    assert wrong.status_code == 400


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (part("purpose") + b"--xx--", "file is missing"),
        (part("file", b"{}") + b"--xx--", "purpose is missing"),
        (part("purpose", b"fine-tune") + part("file", b"{}") + b"--xx--", "must be batch"),
        (part("purpose") + part("file", b"") + b"--xx--", "empty"),
        (part("purpose") + part("file", b"{}"), "ends in the middle"),
        (part("file", b"{}") * 2 + b"--xx--", "twice"),
        (part("purpose") * 2 + b"--xx--", "twice"),
        (part("purpose", b"b" * 20_000) + b"--xx--", "10,000 bytes"),
        (b"no form at all", "cannot be read"),
        (b"".join(part(f"f{number}") for number in range(30)) + b"--xx--", "20 fields"),
    ],
    ids=range(10),
)
async def test_half_a_form_is_refused_and_leaves_nothing(
    body: bytes, word: str, tmp_path: Path
) -> None:
    async with opened(tmp_path) as client:
        reply = await client.http.post("/v1/files", content=body, headers=FORM)
        left = list((tmp_path / "files").iterdir())

    assert reply.status_code == 400
    assert word in reply.json()["error"]["message"]
    assert left == []


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data", ""])
async def test_what_is_no_form_is_refused(kind: str, tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        reply = await client.http.post(
            "/v1/files", content=b"{}", headers={"content-type": kind} if kind else {}
        )

    assert reply.status_code == 400
    assert "multipart/form-data" in reply.json()["error"]["message"]


async def test_a_compressed_form_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        reply = await client.http.post(
            "/v1/files", content=b"x", headers=FORM | {"content-encoding": "gzip"}
        )

    assert reply.status_code == 415


async def test_a_file_may_be_larger_than_any_request_but_not_than_its_limit(
    tmp_path: Path,
) -> None:
    limits: dict[str, Any] = {"max_body_bytes": 2048, "batch_file_bytes": 3_000_000}
    async with opened(tmp_path, **limits) as client:
        large = await client.upload(b"x" * 2_999_999)
        larger = await client.upload(b"x" * 3_000_001)
        left = list((tmp_path / "files").iterdir())

    assert large.status_code == 200
    assert larger.status_code == 413
    assert "3,000,000" in larger.json()["error"]["message"]
    assert larger.headers["connection"] == "close"
    assert len(left) == 1


async def test_all_files_together_have_a_limit_while_they_arrive_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rankd.batches.service.STORED_FILES", 1)
    async with opened(tmp_path, batch_file_bytes=5_000_000) as client:
        replies = await asyncio.gather(*(client.upload(b"x" * 2_000_000) for _ in range(4)))
        statuses = sorted(reply.status_code for reply in replies)
        [refused, *_] = [reply for reply in replies if reply.status_code == 413]
        for one in (await client.get("/v1/files"))["data"]:
            await client.http.delete(f"/v1/files/{one['id']}")
        again = await client.upload(b"x" * 4_000_000)

    assert statuses.count(200) <= 2
    assert statuses.count(413) >= 2
    assert "delete some" in refused.json()["error"]["message"]
    assert again.status_code == 200


async def test_uploads_that_land_while_another_arrives_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, landed = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield part("purpose") + part("file", b"x")[:-2]
        begun.set()
        await landed.wait()
        yield b"x" * 2_500_000 + b"\r\n--xx--"

    monkeypatch.setattr("rankd.batches.service.STORED_FILES", 1)
    async with opened(tmp_path, batch_file_bytes=5_000_000) as client:
        first = asyncio.ensure_future(client.http.post("/v1/files", content=slow(), headers=FORM))
        await begun.wait()
        second = await client.upload(b"x" * 3_000_000)
        landed.set()
        late = await first

    assert (second.status_code, late.status_code) == (200, 413)


async def test_a_file_whose_bytes_were_lost_is_not_found(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        file = (await client.upload(b"{}")).json()["id"]
        (tmp_path / "files" / file).unlink()
        reply = await client.http.get(f"/v1/files/{file}/content")

    assert reply.status_code == 404


async def test_a_file_that_a_job_still_reads_is_not_deleted(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        gate = gated(client)
        job = await client.begin([line("a")])
        early = await client.http.delete(f"/v1/files/{job['input_file_id']}")
        gate.let_on()
        await client.ended(job["id"])
        late = await client.http.delete(f"/v1/files/{job['input_file_id']}")

    assert early.status_code == 400
    assert job["id"] in early.json()["error"]["message"]
    assert late.status_code == 200


async def test_a_caller_says_how_long_a_file_is_kept(tmp_path: Path) -> None:
    lasting = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    async with opened(tmp_path) as client:
        short = (await client.upload(b"{}", **lasting)).json()
        wrong = [
            await client.upload(b"{}", **lasting | {"expires_after[seconds]": "12"}),
            await client.upload(b"{}", **lasting | {"expires_after[seconds]": "soon"}),
            await client.upload(b"{}", **{"expires_after[seconds]": "3600"}),
        ]
        job = await client.begin(
            [line("a")], output_expires_after={"anchor": "created_at", "seconds": 7200}
        )
        done = await client.ended(job["id"])
        output = await client.get(f"/v1/files/{done['output_file_id']}")

    assert short["expires_at"] == short["created_at"] + 3600
    assert [reply.status_code for reply in wrong] == [400] * 3
    assert output["expires_at"] == output["created_at"] + 7200


async def test_what_has_expired_is_gone_from_the_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        job = await client.begin([line("a")])
        await client.ended(job["id"])
        other = (await client.upload(b"{}")).json()["id"]
        _age(tmp_path, job["input_file_id"])
        hidden = await client.http.get(f"/v1/files/{job['input_file_id']}")
        await client.app.state.batches.sweep()
        left = {path.name for path in (tmp_path / "files").iterdir()}

    assert hidden.status_code == 404
    assert other in left
    assert job["input_file_id"] not in left


async def test_old_jobs_are_forgotten(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        job = await client.begin([line("a")])
        await client.ended(job["id"])
        with sqlite3.connect(tmp_path / "batches.db") as database:
            database.execute("UPDATE batches SET created_at = created_at - 31 * 86400")
        database.close()
        await client.app.state.batches.sweep()
        reply = await client.http.get(f"/v1/batches/{job['id']}")

    assert reply.status_code == 404


async def test_what_a_killed_server_left_half_done_is_swept_away(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        kept = (await client.upload(b"{}")).json()["id"]
    for name in "file-half.part", "file-unnamed":
        (tmp_path / "files" / name).write_bytes(b"half")
    async with opened(tmp_path):
        left = [path.name for path in (tmp_path / "files").iterdir()]

    assert left == [kept]


async def test_a_client_that_leaves_while_sending_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        await _send(client, [part("file", b"x" * 100)[:-2]], {"type": "http.disconnect"})
        left = list((tmp_path / "files").iterdir())

    assert left == []


async def test_a_form_that_stops_arriving_is_a_408(tmp_path: Path) -> None:
    async def trickling() -> AsyncIterator[bytes]:
        yield part("file", b"x" * 100)[:-2]
        while True:
            await asyncio.sleep(0.1)
            yield b"x"

    async with opened(tmp_path, read_timeout_seconds=0.5) as client:
        reply = await client.http.post("/v1/files", content=trickling(), headers=FORM)
        left = list((tmp_path / "files").iterdir())

    assert reply.status_code == 408
    assert left == []


async def _send(client: Client, chunks: list[bytes], last: dict[str, Any]) -> None:
    """One upload by hand, which httpx cannot break off."""
    messages = [{"type": "http.request", "body": one, "more_body": True} for one in chunks]
    messages.append(last)

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else last

    async def send(message: Any) -> None:
        """Nobody listens."""

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


def _age(directory: Path, file: str) -> None:
    with sqlite3.connect(directory / "batches.db") as database:
        database.execute("UPDATE files SET expires_at = 1 WHERE id = ?", (file,))
    database.close()
