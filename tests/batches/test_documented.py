"""What /openapi.json says of files and jobs is so; where there are none, it says nothing."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from jobs import jsonl, line, opened

from support.openapi import FUZZER, closed
from support.servers import get, serving

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def paths(document: Any) -> list[str]:
    return [path for path in document["paths"] if re.match("/v1/(files|batches)", path)]


def test_no_request_gets_an_answer_that_is_not_documented(tmp_path: Path) -> None:
    (tmp_path / "fuzzer.toml").write_text(FUZZER)
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", "fuzzer.toml", "run"]
    only = ["--include-path-regex", "^/v1/(files|batches)"]
    with serving("--engine", "fake", "--batch-dir", str(tmp_path / "jobs")) as server:
        assert len(paths(get(f"{server.url}/openapi.json").json())) == 6
        fuzzed = subprocess.run(
            [*command, *only, "--no-color", f"{server.url}/openapi.json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        _, errors = server.stop(signal.SIGTERM)

    assert fuzzed.returncode == 0, fuzzed.stdout
    assert re.search(r"\d{3,} generated, (\d+) passed", fuzzed.stdout), fuzzed.stdout
    assert "Traceback" not in errors


async def test_answers_have_the_documented_fields_and_no_others(tmp_path: Path) -> None:
    async with opened(tmp_path) as client:
        document = await client.get("/openapi.json")
        job = await client.begin([line("a"), line("b", documents=[])])
        done = await client.ended(job["id"])
        file = await client.get(f"/v1/files/{done['output_file_id']}")
        answers = {
            "/v1/batches/{batch_id}": done,
            "/v1/files/{file_id}": file,
            "/v1/batches": await client.get("/v1/batches"),
            "/v1/files": await client.get("/v1/files"),
        }
        broken = (await client.upload(jsonl([line("a")]) + b"{\n")).json()["id"]
        failed = await client.ended((await client.create(broken)).json()["id"])

    for path, answer in [*answers.items(), ("/v1/batches/{batch_id}", failed)]:
        said = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
        whole = closed({**said["schema"], "components": document["components"]})
        assert list(jsonschema_rs.validator_for(whole).iter_errors(answer)) == [], path


async def test_a_server_without_a_directory_does_not_tell_of_them() -> None:
    async with opened(None) as client:
        document = await client.get("/openapi.json")

    assert paths(document) == []
    assert "batches" not in {tag["name"] for tag in document["tags"]}
