"""Jobs: every line of the input file gets one result, in order, independent of other lines."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import stat
import time
from collections.abc import Iterable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from jobs import DOCUMENTS, Json, eventually, gate_engine, jsonl, line, open_client

from rankd.batches import queries, result_writer
from rankd.batches.records import LineResult
from rankd.errors import BadSettings, EngineRestarting
from rankd.types import BACKGROUND_PRIORITY

pytestmark = pytest.mark.anyio


async def test_output_lines_are_in_the_order_of_the_input(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        job = await client.start_job([line(f"r{number}") for number in range(200)])
        done = await client.wait_until_ended(job["id"])
        rows = await client.rows(done["output_file_id"])
        alone = await client.http.post("/v1/rerank", json=line("r7")["body"])
        left = results_in(tmp_path)

    assert (job["status"], done["status"]) == ("validating", "completed")
    assert done["request_counts"] == {"total": 200, "completed": 200, "failed": 0}
    assert done["error_file_id"] is None
    assert [row["custom_id"] for row in rows] == [f"r{number}" for number in range(200)]
    assert len({row["id"] for row in rows}) == 200
    assert all(row["error"] is None for row in rows)
    assert all(row["response"]["status_code"] == 200 for row in rows)
    assert left == 0
    assert rows[7]["response"]["body"]["results"] == alone.json()["results"]


async def test_a_job_has_the_fields_of_openais_batch_object(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        job = await client.start_job([line("one")], metadata={"team": "search"})
        done = await client.wait_until_ended(job["id"])

    assert done["object"] == "batch"
    assert done["endpoint"] == "/v1/rerank"
    assert done["completion_window"] == "24h"
    assert done["expires_at"] == done["created_at"] + 86_400
    assert done["metadata"] == {"team": "search"}
    assert done["errors"] is None
    stamps = [done[f"{name}_at"] for name in ("created", "in_progress", "finalizing", "completed")]
    assert stamps == sorted(stamps)
    never = ("failed", "expired", "cancelling", "cancelled")
    assert [done[f"{name}_at"] for name in never] == [None] * 4


async def test_a_failed_line_is_in_the_error_file_and_the_others_succeed(
    tmp_path: Path,
) -> None:
    rows = [line("good"), line("bad", documents=[]), line("also good")]
    async with open_client(tmp_path) as client:
        done = await client.wait_until_ended((await client.start_job(rows))["id"])
        good = await client.rows(done["output_file_id"])
        bad = await client.rows(done["error_file_id"])

    assert done["status"] == "completed"
    assert done["request_counts"] == {"total": 3, "completed": 2, "failed": 1}
    assert [row["custom_id"] for row in good] == ["good", "also good"]
    assert [row["custom_id"] for row in bad] == ["bad"]
    assert bad[0]["response"]["status_code"] == 400
    assert bad[0]["response"]["body"]["error"]["param"] == "documents"


@pytest.mark.parametrize(
    ("endpoint", "body", "field"),
    [
        ("/v2/rerank", {}, "results"),
        ("/voyage/v1/rerank", {}, "data"),
        ("/v1/score", {"queries": "q", "query": None, "documents": DOCUMENTS}, "data"),
    ],
)
async def test_a_job_can_use_any_rerank_or_score_path(
    endpoint: str, body: Json, field: str, tmp_path: Path
) -> None:
    rows = [line("one", endpoint, **body), line("bad", endpoint, documents=7)]
    async with open_client(tmp_path) as client:
        done = await client.wait_until_ended(
            (await client.start_job(rows, endpoint=endpoint))["id"]
        )
        [row] = await client.rows(done["output_file_id"])
        [bad] = await client.rows(done["error_file_id"])

    assert len(row["response"]["body"][field]) == 2
    assert "documents" in bad["response"]["body"]["detail"]


@pytest.mark.parametrize(
    ("rows", "code", "line_number"),
    [
        ([line("a"), line("a")], "duplicate_custom_id", 2),
        ([line("a"), line("b", "/v2/rerank")], "invalid_url", 2),
        ([line("a") | {"method": "GET"}], "invalid_method", 1),
        ([line("a") | {"body": "text"}], "invalid_body", 1),
        ([line("a") | {"custom_id": 7}], "invalid_custom_id", 1),
        ([line("a"), []], "invalid_json_line", 2),
        ([line("abcd"[number]) for number in range(4)], "too_many_requests", None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_file_with_an_invalid_line_is_not_run(
    rows: list[Any], code: str, line_number: int | None, tmp_path: Path
) -> None:
    async with open_client(tmp_path, job_lines=3) as client:
        done = await client.wait_until_ended((await client.start_job(rows))["id"])

    assert done["status"] == "failed"
    assert done["failed_at"] is not None
    assert done["output_file_id"] is None
    [error] = done["errors"]["data"]
    assert (error["code"], error["line"]) == (code, line_number)
    assert error["message"]


async def test_errors_name_the_line_that_is_invalid_json_or_too_long(tmp_path: Path) -> None:
    long = jsonl([line("long", query="q" * 40_000)])
    content = jsonl([line("a")]) + b"{nonsense\n\n" + long + jsonl([line("b")])[:-1]
    async with open_client(tmp_path, max_body_bytes=20_000) as client:
        uploaded = (await client.upload(content)).json()
        done = await client.wait_until_ended((await client.create(uploaded["id"])).json()["id"])

    found = [(error["code"], error["line"]) for error in done["errors"]["data"]]
    assert found == [("invalid_json_line", 2), ("line_too_long", 4)]


async def test_blank_lines_and_a_missing_last_newline_are_accepted(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + jsonl([line("a")]) + b"\n  \r\n" + jsonl([line("b")])[:-1]
    async with open_client(tmp_path) as client:
        uploaded = (await client.upload(content)).json()
        done = await client.wait_until_ended((await client.create(uploaded["id"])).json()["id"])
        rows = await client.rows(done["output_file_id"])

    assert [row["custom_id"] for row in rows] == ["a", "b"]


async def test_half_a_surrogate_pair_in_a_line_is_accepted(tmp_path: Path) -> None:
    rows = [line("\ud83d", documents=["half an emoji: \ud83d", "Beijing"])]
    async with open_client(tmp_path) as client:
        done = await client.wait_until_ended((await client.start_job(rows))["id"])
        [row] = await client.rows(done["output_file_id"])

    assert row["custom_id"] == "\ufffd"
    assert row["response"]["status_code"] == 200


async def test_lines_have_the_lowest_priority_and_no_rate_limits(tmp_path: Path) -> None:
    limits = {"max_waiting_requests": 1, "key_requests_per_minute": 1, "key_concurrency": 1}
    async with open_client(tmp_path, concurrency=8, timeout_ms=200, **limits) as client:
        gate = gate_engine(client)
        job = await client.start_job([line(f"r{number}", priority=0) for number in range(30)])
        await eventually(lambda: len(gate.calls) == 8)
        await asyncio.sleep(0.3)  # Longer than --timeout-ms.
        admission = client.app.state.service.ranker.admission
        admitted = admission.requests, admission.tokens
        in_flight = len(gate.calls)
        gate.release()
        online = await client.http.post("/v1/rerank", json={"query": "q", "documents": ["d"]})
        done = await client.wait_until_ended(job["id"])

    assert in_flight == 8
    assert admitted == (0, 0)
    assert online.status_code == 200
    assert done["request_counts"]["completed"] == 30
    assert sorted(gate.calls) == [0] + [BACKGROUND_PRIORITY] * 30


async def test_a_line_over_the_token_limit_fails(tmp_path: Path) -> None:
    async with open_client(tmp_path, max_request_tokens=500) as client:
        rows = [line("short"), line("long", documents=["word " * 900])]
        done = await client.wait_until_ended((await client.start_job(rows))["id"])
        [bad] = await client.rows(done["error_file_id"])

    assert bad["response"]["status_code"] == 413
    assert done["request_counts"] == {"total": 2, "completed": 1, "failed": 1}


async def test_a_line_is_retried_while_the_engine_restarts(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        gate = gate_engine(client, free=100)
        score, refusals = gate.score, iter(range(3))

        async def restarting(*args: Any, **options: Any) -> list[float]:
            if next(refusals, None) is not None:
                raise EngineRestarting("not now")
            return await score(*args, **options)

        gate.score = restarting  # type: ignore[method-assign]
        done = await client.wait_until_ended((await client.start_job([line("a"), line("b")]))["id"])

    assert done["request_counts"] == {"total": 2, "completed": 2, "failed": 0}


async def test_an_unexpected_exception_fails_only_its_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_client(tmp_path) as client:
        gate = gate_engine(client, free=100)
        score = gate.score

        async def broken(prompts: Any, **options: Any) -> list[float]:
            if len(prompts) == 1:
                raise ZeroDivisionError("secret of a document")
            return await score(prompts, **options)

        gate.score = broken  # type: ignore[method-assign]
        rows = [line("a", documents=["one"]), line("b")]
        done = await client.wait_until_ended((await client.start_job(rows))["id"])
        [bad] = await client.rows(done["error_file_id"])

    assert bad["response"]["status_code"] == 500
    assert bad["response"]["body"]["error"]["type"] == "internal_error"
    assert done["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_cancelled_job_keeps_its_results_and_lists_the_other_lines_as_errors(
    tmp_path: Path,
) -> None:
    async with open_client(tmp_path, concurrency=4) as client:
        gate = gate_engine(client, free=6)
        job = await client.start_job([line(f"r{number}") for number in range(20)])
        await client.wait_until(job["id"], lambda job: job["request_counts"]["completed"] == 6)
        cancelling = (await client.http.post(f"/v1/batches/{job['id']}/cancel")).json()
        done = await client.wait_until_ended(job["id"])
        good = await client.rows(done["output_file_id"])
        bad = await client.rows(done["error_file_id"])
        calls = len(gate.calls)
        again = await client.http.post(f"/v1/batches/{job['id']}/cancel")

    assert cancelling["status"] == "cancelling"
    assert done["status"] == "cancelled"
    assert done["cancelling_at"] <= done["cancelled_at"]
    assert done["request_counts"] == {"total": 20, "completed": 6, "failed": 14}
    names = sorted(row["custom_id"] for row in good + bad)
    assert names == sorted(f"r{number}" for number in range(20))
    assert {row["error"]["code"] for row in bad} == {"batch_cancelled"}
    assert {row["response"] for row in bad} == {None}
    assert calls <= 10
    assert again.status_code == 200  # Cancelling twice is not an error.


async def test_a_completed_job_cannot_be_cancelled(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        job = await client.wait_until_ended((await client.start_job([line("a")]))["id"])
        reply = await client.http.post(f"/v1/batches/{job['id']}/cancel")

    assert reply.status_code == 400
    assert "completed" in reply.json()["error"]["message"]


async def test_a_job_that_waits_for_another_is_cancelled_at_once(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        gate = gate_engine(client)
        first = await client.start_job([line("a")])
        await client.wait_until(first["id"], lambda job: job["status"] == "in_progress")
        second = await client.start_job([line("b")])
        await client.wait_until(second["id"], lambda job: job["status"] == "in_progress")
        await client.http.post(f"/v1/batches/{second['id']}/cancel")
        cancelled = await client.wait_until_ended(second["id"])
        gate.release()
        done = await client.wait_until_ended(first["id"])

    assert (cancelled["status"], done["status"]) == ("cancelled", "completed")
    assert len(gate.calls) == 1


async def test_lines_without_a_result_at_the_end_of_the_window_expire(tmp_path: Path) -> None:
    async with open_client(tmp_path, concurrency=2) as client:
        gate_engine(client, free=3)
        rows = [line(f"r{number}") for number in range(9)]
        job = await client.start_job(rows, completion_window="3s")
        done = await client.wait_until_ended(job["id"])
        good = await client.rows(done["output_file_id"])
        bad = await client.rows(done["error_file_id"])

    assert done["status"] == "expired"
    assert done["expired_at"] >= done["expires_at"]
    assert done["request_counts"] == {"total": 9, "completed": 3, "failed": 6}
    assert len(good) == 3
    assert {row["error"]["code"] for row in bad} == {"batch_expired"}
    assert len({row["custom_id"] for row in good + bad}) == 9


async def test_a_restarted_server_runs_only_the_remaining_lines(tmp_path: Path) -> None:
    async with open_client(tmp_path, cache_mb=0, concurrency=4) as client:
        gate = gate_engine(client, free=25)
        job = await client.start_job([line(f"r{number}") for number in range(60)])
        await client.wait_until(job["id"], lambda job: job["request_counts"]["completed"] == 25)
    async with open_client(tmp_path, cache_mb=0) as client:
        gate = gate_engine(client, free=100)
        done = await client.wait_until_ended(job["id"])
        rows = await client.rows(done["output_file_id"])

    assert done["request_counts"] == {"total": 60, "completed": 60, "failed": 0}
    assert [row["custom_id"] for row in rows] == [f"r{number}" for number in range(60)]
    assert len(gate.calls) == 35


async def test_a_job_whose_input_file_is_missing_fails(tmp_path: Path) -> None:
    async with open_client(tmp_path, cache_mb=0) as client:
        gate_engine(client, free=5)
        job = await client.start_job([line(f"r{number}") for number in range(9)])
        await client.wait_until(job["id"], lambda job: job["request_counts"]["completed"] == 5)
    (tmp_path / "files" / job["input_file_id"]).unlink()
    async with open_client(tmp_path) as client:
        done = await client.wait_until_ended(job["id"])
        await client.app.state.batches.delete_expired()

    assert done["status"] == "failed"
    assert [error["code"] for error in done["errors"]["data"]] == ["missing_file"]
    assert results_in(tmp_path) == 0


async def test_a_job_waits_while_the_disk_is_full_and_then_completes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(result_writer, "RETRY_SECONDS", 0.2)
    async with open_client(tmp_path) as client:
        gate = gate_engine(client)
        job = await client.start_job([line(f"r{number}") for number in range(9)])
        await eventually(lambda: len(gate.calls) == 9)
        database = client.app.state.batches.database
        pages = await database.run(_limit_pages, 1)
        gate.release()
        await eventually(lambda: "next attempt" in caplog.text)
        stuck = await client.get(f"/v1/batches/{job['id']}")
        await database.run(_limit_pages, pages * 1000)
        done = await client.wait_until_ended(job["id"])

    assert stuck["status"] == "in_progress"
    assert stuck["request_counts"]["completed"] == 0
    assert "next attempt" in caplog.text
    assert "full" in caplog.text
    assert done["request_counts"] == {"total": 9, "completed": 9, "failed": 0}


async def test_output_files_are_deleted_when_they_cannot_be_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish_job, attempts = queries.finish_job, []

    def fail_twice(*args: Any, **kwargs: Any) -> None:
        attempts.append(len(list((tmp_path / "files").iterdir())))
        if len(attempts) < 3:
            raise sqlite3.OperationalError("database or disk is full")
        finish_job(*args, **kwargs)

    monkeypatch.setattr(result_writer, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(queries, "finish_job", fail_twice)
    async with open_client(tmp_path) as client:
        job = await client.start_job([line("r1"), line("r2", documents=[])])
        done = await client.wait_until_ended(job["id"])
        rows = await client.rows(done["output_file_id"])

    assert attempts == [3, 3, 3]  # The input, the output and the error file.
    assert [row["custom_id"] for row in rows] == ["r1"]


async def test_results_wait_while_the_database_is_damaged_and_the_log_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add_results, is_damaged = queries.add_results, True

    def add_unless_damaged(*args: Any) -> None:
        if is_damaged:
            raise sqlite3.DatabaseError("database disk image is malformed")
        add_results(*args)

    monkeypatch.setattr(result_writer, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(queries, "add_results", add_unless_damaged)
    async with open_client(tmp_path) as client:
        job = await client.start_job([line("r1"), line("r2")])
        await eventually(lambda: "malformed" in caplog.text)
        is_damaged = False
        done = await client.wait_until_ended(job["id"])

    assert done["request_counts"] == {"total": 2, "completed": 2, "failed": 0}


async def test_reading_a_damaged_database_is_a_503(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        for _ in range(200):
            await client.upload(jsonl([line("r1")]))
        await client.app.state.batches.database.run(_empty_wal_and_cache)
        path = tmp_path / "batches.db"
        path.write_bytes(path.read_bytes()[:4096] + b"\xff" * path.stat().st_size)
        reply = await client.http.get("/v1/files")

    assert reply.status_code == 503
    assert reply.json()["error"]["code"] == "storage_down"


async def test_a_database_with_other_tables_is_refused_at_start(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "batches.db")) as database:
        database.execute("PRAGMA user_version = 1")

    with pytest.raises(BadSettings, match="no such table"):
        async with open_client(tmp_path):
            raise AssertionError


def _empty_wal_and_cache(database: sqlite3.Connection) -> None:
    database.execute("COMMIT")
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    database.execute("PRAGMA cache_size = 0")
    database.execute("BEGIN")


async def test_a_folder_among_the_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "files" / "lost+found").mkdir(parents=True)
    async with open_client(tmp_path) as client:
        files = await client.get("/v1/files")

    assert files["data"] == []
    assert (tmp_path / "files" / "lost+found").is_dir()


def _limit_pages(database: sqlite3.Connection, limit: int) -> int:
    """Let SQLite report a full disk at a number of pages; returns how many there are."""
    database.execute(f"PRAGMA max_page_count = {limit}").fetchall()
    return int(database.execute("PRAGMA page_count").fetchone()[0])


def results_in(directory: Path) -> int:
    """How many results of lines the database holds."""
    with closing(sqlite3.connect(directory / "batches.db")) as database:
        return int(database.execute("SELECT COUNT(*) FROM answers").fetchone()[0])


async def test_a_stopping_server_drops_lines_in_flight_at_once(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        gate_engine(client)
        job = await client.start_job([line(f"r{number}") for number in range(5)])
        drain = client.app.state.service.drain
        await eventually(lambda: bool(drain.running))
        drain.begin()
        await eventually(lambda: not drain.running)
        refused = await client.create(job["input_file_id"])

    assert refused.status_code == 503


async def test_jobs_of_two_keys_run_side_by_side_and_are_hidden_from_each_other(
    tmp_path: Path,
) -> None:
    keys = json.dumps(["alpha-key", "beta-key"])
    async with open_client(tmp_path, api_keys=keys, concurrency=2, cache_mb=0) as client:
        gate = gate_engine(client, free=4)
        alpha, beta = (type(client)(client.app, key) for key in ("alpha-key", "beta-key"))
        first = await alpha.start_job([line(f"a{number}") for number in range(50)])
        await alpha.wait_until(first["id"], lambda job: job["request_counts"]["completed"] == 4)
        second = await beta.start_job([line("b1"), line("b2")])
        await beta.wait_until(second["id"], lambda job: job["status"] == "in_progress")
        gate.release(8)
        done = await beta.wait_until_ended(second["id"])
        paths = [
            f"/v1/batches/{first['id']}",
            f"/v1/files/{first['input_file_id']}",
            f"/v1/files/{first['input_file_id']}/content",
        ]
        seen = [(await beta.http.get(path)).status_code for path in paths]
        cancelled = await beta.http.post(f"/v1/batches/{first['id']}/cancel")
        deleted = await beta.http.delete(f"/v1/files/{first['input_file_id']}")
        used = await beta.create(first["input_file_id"])
        lists = [await beta.get(path) for path in ("/v1/batches", "/v1/files")]
        without_key = await client.http.get(paths[0])

    assert done["status"] == "completed"
    assert seen == [404, 404, 404]
    assert (cancelled.status_code, deleted.status_code, used.status_code) == (404, 404, 400)
    owned = [[item["id"] for item in page["data"]] for page in lists]
    assert owned[0] == [second["id"]]
    assert set(owned[1]) == {second["input_file_id"], done["output_file_id"]}
    assert without_key.status_code == 401


async def test_a_job_ends_while_results_of_other_jobs_keep_arriving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_results = queries.add_results

    def add_slowly(database: sqlite3.Connection, results: Iterable[LineResult]) -> None:
        add_results(database, results)
        time.sleep(0.02)

    async def store_others() -> None:
        writer = client.app.state.batches.runner._results
        async with asyncio.TaskGroup() as group:
            for number in count():
                group.create_task(writer.store(LineResult("another", number, True, b"{}\n")))
                await asyncio.sleep(0.002)

    monkeypatch.setattr(queries, "add_results", add_slowly)
    async with open_client(tmp_path) as client:
        others = asyncio.create_task(store_others())
        job = await client.start_job([line("r1"), line("r2")])
        done = await client.wait_until_ended(job["id"])
        others.cancel()
        await asyncio.wait([others])

    assert done["request_counts"] == {"total": 2, "completed": 2, "failed": 0}


async def test_jobs_are_listed_in_pages_newest_first(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        jobs = [(await client.start_job([line("a")]))["id"] for _ in range(5)]
        pages, after = [], ""
        while True:
            page = await client.get(f"/v1/batches?limit=2{after}")
            pages.append([job["id"] for job in page["data"]])
            assert (page["first_id"], page["last_id"]) == (pages[-1][0], pages[-1][-1])
            if not page["has_more"]:
                break
            after = f"&after={page['last_id']}"
        wrong = [
            await client.http.get(f"/v1/batches?limit={limit}")
            for limit in ("0", "101", "x", "00000000199", "000000001" + "9" * 5000)
        ]

    assert pages == [jobs[:2:-1], jobs[2:0:-1], jobs[:1]]
    assert [reply.status_code for reply in wrong] == [400] * 5


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"endpoint": "/tokenize"}, "endpoint"),
        ({"completion_window": "0h"}, "completion_window"),
        ({"completion_window": "31d"}, "completion_window"),
        ({"completion_window": 24}, "completion_window"),
        ({"input_file_id": "file-unknown"}, "input_file_id"),
        ({"metadata": {"a": 1}}, "metadata.a"),
        ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 1}}, None),
    ],
    ids=str,
)
async def test_an_invalid_job_is_refused_with_the_name_of_the_field(
    fields: Json, param: str | None, tmp_path: Path
) -> None:
    async with open_client(tmp_path) as client:
        file = (await client.upload(jsonl([line("a")]))).json()["id"]
        reply = await client.create(file, **fields)

    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == (param or "output_expires_after.seconds")


async def test_without_batch_dir_the_404_names_the_flag() -> None:
    async with open_client(None) as client:
        replies = [
            await client.upload(b"{}"),
            await client.create("file-1"),
            await client.http.get("/v1/batches"),
        ]

    assert {reply.status_code for reply in replies} == {404}
    assert all("--batch-dir" in reply.json()["error"]["message"] for reply in replies)


async def test_a_second_server_cannot_use_the_same_directory(tmp_path: Path) -> None:
    async with open_client(tmp_path):
        with pytest.raises(BadSettings, match="another server"):
            async with open_client(tmp_path):
                pass


async def test_an_unusable_directory_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BadSettings, match="--batch-dir"):
        async with open_client(tmp_path / "file"):
            pass
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "batches.db").write_text("no database, but quite some text " * 100)
    with pytest.raises(BadSettings, match=r"batches\.db"):
        async with open_client(tmp_path / "other"):
            pass


async def test_only_the_servers_user_can_read_the_directory(tmp_path: Path) -> None:
    directory = tmp_path / "made"
    async with open_client(directory) as client:
        await client.wait_until_ended((await client.start_job([line("a")]))["id"])
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in directory.rglob("*")}

    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {mode & 0o077 for mode in modes.values()} == {0}, modes


async def test_no_text_of_a_request_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    rows = [line("canary-name", query="canary-query", documents=["canary-document", ""])]
    async with open_client(tmp_path, log_level="debug") as client:
        for content in jsonl(rows), b'{"canary-broken\n':
            file = (await client.upload(content, canary="canary-field")).json()["id"]
            await client.wait_until_ended((await client.create(file)).json()["id"])

    assert "batch job" in caplog.text
    assert "canary" not in caplog.text
