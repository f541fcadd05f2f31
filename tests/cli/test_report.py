"""`rankd check --json` and `rankd version`."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from rankd import __version__
from rankd.cli.report import schema
from support.servers import run

SCHEMA = Path(__file__).parents[2] / "docs/check.schema.json"


def checked(*arguments: str) -> tuple[int, dict[str, Any]]:
    """The status of `rankd check --json`, and its answer, which fits the schema."""
    ended = run("check", "--json", *arguments)
    answer = json.loads(ended.stdout)
    jsonschema_rs.validate(json.loads(SCHEMA.read_text(encoding="utf-8")), answer)
    assert "Traceback" not in ended.stderr
    assert answer["exit_code"] == ended.returncode
    return ended.returncode, answer


def test_the_documented_schema_is_the_one_it_is_made_by() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == schema()


def test_it_says_what_was_expected_and_what_was_observed() -> None:
    status, answer = checked()

    assert status == 0
    assert answer["verdict"] == "right"
    assert answer["engine"]["name"] == "native"
    assert answer["engine"]["device"] == "cpu"
    assert answer["model"]["name"] == "builtin"
    assert answer["environment"]["rankd"] == __version__
    assert answer["environment"]["libraries"]["torch"]
    assert answer["environment"]["libraries"]["python-json-logger"]
    assert answer["template"]["yes"] != answer["template"]["no"]
    assert answer["template"]["prefix"]
    assert answer["template"]["suffix"]
    assert [pair["problem"] for pair in answer["pairs"]] == [None] * 3
    for pair in answer["pairs"]:
        expected = pair["expected"]
        assert pair["right"]["score"] > expected["right_score_above"]
        assert pair["wrong"]["score"] < expected["wrong_score_below"]
        assert pair["margin"] == pytest.approx(pair["right"]["logit"] - pair["wrong"]["logit"])
        assert pair["margin"] >= expected["least_margin"]


def test_wrong_scores_are_wrong_with_the_pairs_and_status_1(random_checkpoint: Path) -> None:
    status, answer = checked(str(random_checkpoint))

    assert status == 1
    assert answer["verdict"] == "wrong"
    assert any(pair["problem"] for pair in answer["pairs"])
    assert "the self-check failed on" in answer["message"]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["/no/such/folder"], 3, "no model folder at '/no/such/folder'"),
        (["--max-tokens", "many"], 2, "max_tokens = 'many'"),
        (["--device", "cuda"], 2, "device = 'cuda'"),
        (["--config", "/no/such.toml"], 2, "cannot read --config"),
    ],
)
def test_what_cannot_be_checked_is_json_too(
    arguments: list[str], status: int, message: str
) -> None:
    code, answer = checked(*arguments)

    assert code == status
    assert answer["verdict"] == "failed"
    assert answer["message"].startswith(message)
    assert answer["pairs"] is None


def test_version_says_what_runs_here() -> None:
    said = run("version").stdout
    told = json.loads(run("version", "--json").stdout)

    assert re.match(rf"rankd {{2,}}{re.escape(__version__)} \(", said)
    # Names in one column, values in another.
    values = {re.match(r"\S+ +", line).end() for line in said.splitlines()}  # type: ignore[union-attr]
    assert len(values) == 1
    for name in ("python", "platform", "builtin", "torch", "fastapi"):
        assert f"\n{name} " in said
    assert told["rankd"] == __version__
    assert run("--version").stdout == f"rankd {__version__}\n"


def test_version_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom rankd.cli.main import main\nmain(['version'])\n"
        "assert not {'torch', 'vllm', 'uvicorn'} & set(sys.modules)\n"
    )
    from support.servers import command

    ended = subprocess.run(
        [command()[0], "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 0, ended.stderr
