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
from rankd.cli.exactness import compare_with_float32
from rankd.cli.report import schema
from rankd.config.settings import Settings
from rankd.engines.base import EngineInfo
from rankd.engines.devices import free_memory
from rankd.models.checkpoint import BUILTIN, locate
from support.servers import command, run

pytestmark = pytest.mark.anyio

SCHEMA = Path(__file__).parents[2] / "docs/check.schema.json"


def checked(*arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit status of `rankd check --json`, and its report, validated against the schema."""
    ended = run("check", "--json", *arguments)
    report = json.loads(ended.stdout)
    jsonschema_rs.validate(json.loads(SCHEMA.read_text(encoding="utf-8")), report)
    assert "Traceback" not in ended.stderr
    assert report["exit_code"] == ended.returncode
    return ended.returncode, report


def test_the_documented_schema_is_current() -> None:
    assert json.loads(SCHEMA.read_text(encoding="utf-8")) == schema()


def test_the_report_has_expected_and_observed_scores() -> None:
    status, report = checked()

    assert status == 0
    assert report["verdict"] == "right"
    assert report["engine"]["name"] == "native"
    assert report["engine"]["device"] == "cpu"
    assert report["model"]["name"] == "builtin"
    assert report["environment"]["rankd"] == __version__
    assert report["environment"]["libraries"]["torch"]
    assert report["environment"]["libraries"]["python-json-logger"]
    assert report["template"]["yes"] != report["template"]["no"]
    assert report["template"]["prefix"]
    assert report["template"]["suffix"]
    assert [pair["problem"] for pair in report["pairs"]] == [None] * 3
    for pair in report["pairs"]:
        expected = pair["expected"]
        assert pair["right"]["score"] > expected["right_score_above"]
        assert pair["wrong"]["score"] < expected["wrong_score_below"]
        assert pair["margin"] == pytest.approx(pair["right"]["logit"] - pair["wrong"]["logit"])
        assert pair["margin"] >= expected["least_margin"]
    logits = [pair[which]["logit"] for pair in report["pairs"] for which in ("right", "wrong")]
    assert report["exactness"] == {
        "difference": 0,
        "spread": pytest.approx(max(logits) - min(logits)),
        "problem": None,
    }


async def test_scores_are_not_compared_with_float32_if_its_weights_do_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rankd.cli.exactness.free_memory", lambda: 10**9)
    info = EngineInfo("native", "builtin", "r", "cpu", "bfloat16", 8192)

    report = await compare_with_float32(Settings(), locate(BUILTIN), info, [])

    assert report.difference is None
    assert report.problem == "float32 needs 1.1 GB of memory, 1.0 GB are free"


async def test_an_error_in_float32_is_the_reason_why_scores_are_not_compared(
    random_checkpoint: Path,
) -> None:
    checkpoint = locate(str(random_checkpoint))
    info = EngineInfo("vllm", "model", "r", "cpu", "bfloat16", 8192)
    settings = Settings(model="/no/such/folder")

    report = await compare_with_float32(settings, checkpoint, info, [])

    assert report.difference is None
    assert str(report.problem).startswith("no model folder at '/no/such/folder'")


def test_free_memory_is_that_of_the_machine_or_of_the_container(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    4 kB\n")
    (tmp_path / "none").write_text("max\n")
    (tmp_path / "small").write_text("1000\n")
    missing = tmp_path / "missing"

    assert free_memory(tmp_path / "meminfo", tmp_path / "none") == 4096
    assert free_memory(tmp_path / "meminfo", tmp_path / "small") == 1000
    assert free_memory(tmp_path / "meminfo", missing) == 4096
    assert free_memory(missing, missing) is None


def test_wrong_scores_are_reported_with_the_pairs_and_status_1(random_checkpoint: Path) -> None:
    status, report = checked(str(random_checkpoint))

    assert status == 1
    assert report["verdict"] == "wrong"
    assert any(pair["problem"] for pair in report["pairs"])
    assert "the self-check failed on" in report["message"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["/no/such/folder"], 3, "no model folder at '/no/such/folder'"),
        (["--max-tokens", "many"], 2, "max_tokens = 'many'"),
        (["--device", "cuda"], 2, "device = 'cuda'"),
        (["--config", "/no/such.toml"], 2, "cannot read --config"),
    ],
)
def test_a_failure_is_json_too(arguments: list[str], status: int, message: str) -> None:
    code, report = checked(*arguments)

    assert code == status
    assert report["verdict"] == "failed"
    assert report["message"].startswith(message)
    assert report["pairs"] is None


def test_version_prints_the_installed_software() -> None:
    text = run("version").stdout
    report = json.loads(run("version", "--json").stdout)

    assert re.match(rf"rankd {{2,}}{re.escape(__version__)} \(", text)
    # Names in one column, values in another.
    values = {re.match(r"\S+ +", line).end() for line in text.splitlines()}  # type: ignore[union-attr]
    assert len(values) == 1
    for name in ("python", "platform", "builtin", "torch", "fastapi"):
        assert f"\n{name} " in text
    assert report["rankd"] == __version__
    assert run("--version").stdout == f"rankd {__version__}\n"


def test_version_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom rankd.cli.main import main\nmain(['version'])\n"
        "assert not {'torch', 'vllm', 'uvicorn'} & set(sys.modules)\n"
    )
    ended = subprocess.run(
        [command()[0], "-c", code], capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 0, ended.stderr
