"""A job survives its server: after two `kill -9` every line has exactly one result."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from jobs import ENDED, Json, jsonl, line

from support.servers import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LINES = 400
DOCUMENTS = ["Gravity attracts two bodies.", "Beijing is the capital.", "Bread is made of flour."]


def _server(directory: Path) -> Any:
    # Without the cache, so that lines that are run twice are computed twice.
    options = ("--self-check", "off", "--cache-mb", "0", "--no-access-log")
    return serving("builtin", *options, "--batch-dir", str(directory))


def _start_job(server: Server, rows: list[Json]) -> str:
    files = {"file": ("in.jsonl", jsonl(rows))}
    uploaded = httpx.post(f"{server.url}/v1/files", files=files, data={"purpose": "batch"})
    body = {
        "input_file_id": uploaded.json()["id"],
        "endpoint": "/v1/rerank",
        "completion_window": "24h",
    }
    return str(httpx.post(f"{server.url}/v1/batches", json=body).json()["id"])


def _wait_until(server: Server, job_id: str, condition: Callable[[Json], bool]) -> Json:
    start = time.monotonic()
    while time.monotonic() - start < 600:
        job: Json = httpx.get(f"{server.url}/v1/batches/{job_id}", timeout=60).json()
        if condition(job):
            return job
        time.sleep(0.05)
    raise AssertionError(f"the condition was never met: {job}")


def _rows(server: Server, job: Json) -> list[Json]:
    reply = httpx.get(f"{server.url}/v1/files/{job['output_file_id']}/content", timeout=30)
    return [json.loads(row) for row in reply.text.splitlines()]


def _scores(row: Json) -> dict[int, float]:
    assert row["response"]["status_code"] == 200
    results = row["response"]["body"]["results"]
    return {result["index"]: result["relevance_score"] for result in results}


def test_a_job_interrupted_by_two_kills_gives_the_same_results_as_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    rows = [line(f"r{number}", documents=DOCUMENTS) for number in range(LINES)]
    names = [row["custom_id"] for row in rows]
    with _server(tmp_path / "undisturbed") as server:
        undisturbed = _rows(
            server,
            _wait_until(server, _start_job(server, rows), lambda job: job["status"] in ENDED),
        )

    directory = tmp_path / "killed"
    counts = []
    with _server(directory) as server:
        job = _start_job(server, rows)
        _wait_until(server, job, lambda job: job["request_counts"]["completed"] > LINES // 5)
        server.stop(signal.SIGKILL)
    with _server(directory) as server:
        counts.append(_wait_until(server, job, lambda job: True)["request_counts"]["completed"])
        _wait_until(server, job, lambda job: job["request_counts"]["completed"] > LINES // 2)
        server.stop(signal.SIGKILL)
    with _server(directory) as server:
        counts.append(_wait_until(server, job, lambda job: True)["request_counts"]["completed"])
        done = _wait_until(server, job, lambda job: job["status"] in ENDED)
        killed = _rows(server, done)
        status, errors = server.stop(signal.SIGTERM)

    assert LINES // 5 <= counts[0] <= counts[1] < LINES  # Both kills came in the middle of the job.
    assert counts[1] > LINES // 2
    assert done["status"] == "completed"
    assert done["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    assert (
        [row["custom_id"] for row in killed] == names == [row["custom_id"] for row in undisturbed]
    )
    for interrupted, expected in zip(killed, undisturbed, strict=True):
        # The last digits of a logit depend on the batch; see the engine contract tests.
        assert _scores(interrupted) == pytest.approx(_scores(expected), abs=1e-5)
    assert status == 0
    assert "Traceback" not in errors


def test_a_server_that_gets_sigterm_does_not_wait_for_a_job(tmp_path: Path) -> None:
    rows = [line(f"r{number}", documents=DOCUMENTS) for number in range(LINES)]
    with _server(tmp_path) as server:
        job = _start_job(server, rows)
        _wait_until(server, job, lambda job: job["request_counts"]["completed"] > 50)
        start = time.monotonic()
        status, _ = server.stop(signal.SIGTERM)
        seconds = time.monotonic() - start
    with _server(tmp_path) as server:
        left = _wait_until(server, job, lambda job: True)["request_counts"]["completed"]
        httpx.post(f"{server.url}/v1/batches/{job}/cancel")
        done = _wait_until(server, job, lambda job: job["status"] in ENDED)

    assert status == 0
    assert seconds < 60
    assert 50 < left < LINES
    assert done["status"] == "cancelled"
    assert done["request_counts"]["completed"] >= left
