"""/openapi.json describes files and jobs correctly, and omits them without --batch-dir."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from jobs import jsonl, line, open_client

from support.openapi import FUZZER, closed
from support.servers import get, serving

pytestmark = pytest.mark.anyio


def batch_paths(document: Any) -> list[str]:
    return [path for path in document["paths"] if re.match("/v1/(files|batches)", path)]


@pytest.mark.slow
def test_fuzzed_requests_get_only_documented_responses(tmp_path: Path) -> None:
    (tmp_path / "fuzzer.toml").write_text(FUZZER)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "fuzzer.toml", "run"]
    only = ["--include-path-regex", "^/v1/(files|batches)"]
    with serving("--engine", "fake", "--batch-dir", str(tmp_path / "jobs")) as server:
        assert len(batch_paths(get(f"{server.url}/openapi.json").json())) == 6
        fuzzed = subprocess.run(
            [*command, *only, "--no-color", f"{server.url}/openapi.json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        _, errors = server.stop(signal.SIGTERM)

    assert fuzzed.returncode == 0, fuzzed.stdout
    assert re.search(r"\d{3,} generated, (\d+) passed", fuzzed.stdout), fuzzed.stdout
    assert "Traceback" not in errors


async def test_responses_have_exactly_the_documented_fields(tmp_path: Path) -> None:
    async with open_client(tmp_path) as client:
        document = await client.get("/openapi.json")
        job = await client.start_job([line("a"), line("b", documents=[])])
        done = await client.wait_until_ended(job["id"])
        file = await client.get(f"/v1/files/{done['output_file_id']}")
        answers = {
            "/v1/batches/{batch_id}": done,
            "/v1/files/{file_id}": file,
            "/v1/batches": await client.get("/v1/batches"),
            "/v1/files": await client.get("/v1/files"),
        }
        broken = (await client.upload(jsonl([line("a")]) + b"{\n")).json()["id"]
        failed = await client.wait_until_ended((await client.create(broken)).json()["id"])

    for path, answer in [*answers.items(), ("/v1/batches/{batch_id}", failed)]:
        documented = document["paths"][path]["get"]["responses"]["200"]["content"][
            "application/json"
        ]
        schema = closed({**documented["schema"], "components": document["components"]})
        assert list(jsonschema_rs.validator_for(schema).iter_errors(answer)) == [], path


async def test_a_server_without_a_directory_does_not_document_them() -> None:
    async with open_client(None) as client:
        document = await client.get("/openapi.json")

    assert batch_paths(document) == []
    assert "batches" not in {tag["name"] for tag in document["tags"]}
