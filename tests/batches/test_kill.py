"""A job outlives its server: `kill -9` in the middle, twice, and every line is answered once."""

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

LINES = 1000
DOCUMENTS = ["Gravity attracts two bodies.", "Beijing is the capital.", "Bread is made of flour."]


def _server(directory: Path) -> Any:
    # Without the cache: a line that is computed twice must come out the same by itself.
    options = ("--self-check", "off", "--cache-mb", "0", "--no-access-log")
    return serving("builtin", *options, "--batch-dir", str(directory))


def _begin(server: Server, rows: list[Json]) -> str:
    files = {"file": ("in.jsonl", jsonl(rows))}
    uploaded = httpx.post(f"{server.url}/v1/files", files=files, data={"purpose": "batch"})
    body = {
        "input_file_id": uploaded.json()["id"],
        "endpoint": "/v1/rerank",
        "completion_window": "24h",
    }
    return str(httpx.post(f"{server.url}/v1/batches", json=body).json()["id"])


def _until(server: Server, job: str, wanted: Callable[[Json], bool]) -> Json:
    began = time.monotonic()
    while time.monotonic() - began < 300:
        found: Json = httpx.get(f"{server.url}/v1/batches/{job}", timeout=30).json()
        if wanted(found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"still {found}")


def _rows(server: Server, job: Json) -> list[Json]:
    reply = httpx.get(f"{server.url}/v1/files/{job['output_file_id']}/content", timeout=30)
    return [json.loads(row) for row in reply.text.splitlines()]


def _scores(row: Json) -> dict[int, float]:
    assert row["response"]["status_code"] == 200
    return {one["index"]: one["relevance_score"] for one in row["response"]["body"]["results"]}


def test_a_job_survives_two_kills_and_is_equal_to_one_that_was_not_disturbed(
    tmp_path: Path,
) -> None:
    rows = [line(f"r{number}", documents=DOCUMENTS) for number in range(LINES)]
    names = [row["custom_id"] for row in rows]
    with _server(tmp_path / "calm") as server:
        calm = _rows(
            server, _until(server, _begin(server, rows), lambda job: job["status"] in ENDED)
        )

    directory = tmp_path / "killed"
    counts = []
    with _server(directory) as server:
        job = _begin(server, rows)
        _until(server, job, lambda job: job["request_counts"]["completed"] > LINES // 5)
        server.stop(signal.SIGKILL)
    with _server(directory) as server:
        counts.append(_until(server, job, lambda job: True)["request_counts"]["completed"])
        _until(server, job, lambda job: job["request_counts"]["completed"] > LINES // 2)
        server.stop(signal.SIGKILL)
    with _server(directory) as server:
        counts.append(_until(server, job, lambda job: True)["request_counts"]["completed"])
        done = _until(server, job, lambda job: job["status"] in ENDED)
        killed = _rows(server, done)
        status, errors = server.stop(signal.SIGTERM)

    assert LINES // 5 <= counts[0] <= counts[1] < LINES  # Both were in the middle.
    assert counts[1] > LINES // 2
    assert done["status"] == "completed"
    assert done["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    assert [row["custom_id"] for row in killed] == names == [row["custom_id"] for row in calm]
    for one, other in zip(killed, calm, strict=True):
        # Neighbours in a batch move the last digits of a logit; see the engine contract.
        assert _scores(one) == pytest.approx(_scores(other), abs=1e-5)
    assert status == 0
    assert "Traceback" not in errors


def test_a_server_that_is_asked_to_stop_does_not_wait_for_a_job(tmp_path: Path) -> None:
    rows = [line(f"r{number}", documents=DOCUMENTS) for number in range(LINES)]
    with _server(tmp_path) as server:
        job = _begin(server, rows)
        _until(server, job, lambda job: job["request_counts"]["completed"] > 50)
        began = time.monotonic()
        status, _ = server.stop(signal.SIGTERM)
        took = time.monotonic() - began
    with _server(tmp_path) as server:
        left = _until(server, job, lambda job: True)["request_counts"]["completed"]
        httpx.post(f"{server.url}/v1/batches/{job}/cancel")
        done = _until(server, job, lambda job: job["status"] in ENDED)

    assert status == 0
    assert took < 15
    assert 50 < left < LINES
    assert done["status"] == "cancelled"
    assert done["request_counts"]["completed"] >= left
