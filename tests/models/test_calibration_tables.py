"""Calibrations that ship: for which weights, prompt and instruction they hold, and where shown."""

from __future__ import annotations

import logging
import math
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from rankd.config.settings import Settings
from rankd.config.tables import Calibration, Platt
from rankd.models import calibration_tables
from rankd.models.calibration_tables import FOLDER, calibration_of, file_of, read_table
from rankd.models.checkpoint import Checkpoint, locate
from rankd.prompts import PromptEncoder, open_encoder
from rankd.ranking.profiles import Profiles
from rankd.server.app import open_app

INSTRUCTION = Settings().instruction
TABLES = sorted(FOLDER.glob("*.toml"))
BODY = {"query": "What is the capital of China?", "documents": ["Beijing is.", "Lions hunt."]}


def encoder_of(checkpoint: Checkpoint, instruction: str = INSTRUCTION) -> PromptEncoder:
    return open_encoder(
        checkpoint, max_tokens=512, instruction=instruction, max_instruction_tokens=512
    )


def found(checkpoint: Checkpoint, instruction: str = INSTRUCTION) -> Any:
    encoder = encoder_of(checkpoint, instruction)
    return calibration_of(checkpoint, encoder.template, encoder.instruction)


def test_the_builtin_models_table_holds_for_the_builtin_model(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After new weights or another prompt, measure again: docs/evaluation.md says how."""
    table = found(locate("builtin"))

    assert table is not None, caplog.text
    assert not caplog.records


@pytest.mark.parametrize("file", TABLES, ids=lambda file: file.name)
def test_every_table_says_what_it_was_measured_on(file: Path) -> None:
    table = read_table(file)

    assert file_of(table.model) == file
    assert len(table.measured["pairs"]) > 20
    assert table.measured["judged"] >= 200
    assert 0 < table.measured["relevant"] < table.measured["judged"]
    assert table.threshold is not None


def test_other_weights_of_the_same_name_have_no_calibration_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(locate("builtin").path, tmp_path / "builtin")
    weights = tmp_path / "builtin" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    assert found(locate(str(tmp_path / "builtin"))) is None

    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "measured with weights" in record.message
    assert "results get no normalized_score" in record.message


def test_another_instruction_or_prompt_has_no_calibration(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "rankd")
    checkpoint = locate("builtin")

    assert found(checkpoint, "Find lions.") is None
    assert calibration_of(checkpoint, "0" * 12, INSTRUCTION) is None

    first, second = (record.message for record in caplog.records)
    assert "measured with another instruction" in first
    assert "measured with prompt" in second


def test_a_model_without_a_table_is_not_read(
    random_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "fingerprint", lambda self: pytest.fail("it was read"))

    assert calibration_of(locate(str(random_checkpoint)), "0" * 12, INSTRUCTION) is None


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "me/..", "/", "x" * 200])
def test_no_name_leads_out_of_the_folder(name: str) -> None:
    assert file_of(name) is None


def test_the_last_part_of_a_name_finds_the_table() -> None:
    assert file_of("me/builtin") == file_of("builtin") == calibration_tables.FOLDER / "builtin.toml"


def test_a_configured_scaling_replaces_the_shipped_one() -> None:
    shipped, own = Platt(slope=1, intercept=2), Platt(slope=3, intercept=4)

    def chosen(measured: Platt | None, **tables: Calibration) -> Any:
        profile = Profiles(Settings(calibration=tables), measured).choose()
        return profile.platt, profile.threshold

    assert chosen(None) == (None, None)
    assert chosen(shipped) == (shipped, None)
    assert chosen(shipped, default=Calibration(platt=own)) == (own, None)
    assert chosen(shipped, default=Calibration(threshold=0.5)) == (shipped, 0.5)


def test_the_shipped_scaling_is_that_of_the_servers_instruction_only() -> None:
    shipped = Platt(slope=1, intercept=2)
    profiles = Profiles(Settings(instructions={"lions": "Find lions."}), shipped)

    assert profiles.choose(text=INSTRUCTION).platt == shipped
    assert profiles.choose(text="Find lions.").platt is None
    assert profiles.choose(preset="lions").platt is None
    assert profiles.choose(text="Find whales.").platt is None


async def answers(**settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plain answer, and that with details."""
    async with (
        open_app(Settings(**settings)) as app,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1"
        ) as client,
    ):
        plain = await client.post("/v1/rerank", json=BODY)
        details = await client.post("/v1/rerank", json=BODY | {"return_details": True})
    return plain.json(), details.json()


@pytest.mark.anyio
async def test_the_builtin_model_gives_normalized_scores_where_details_are_asked_for() -> None:
    platt = read_table(FOLDER / "builtin.toml").platt

    plain, details = await answers()

    assert [set(result) for result in plain["results"]] == [
        {"index", "relevance_score", "document"}
    ] * 2
    for result in details["results"]:
        score = result["relevance_score"]
        logit = math.log(score / (1 - score))
        expected = 1 / (1 + math.exp(-(platt.slope * logit + platt.intercept)))
        assert result["normalized_score"] == pytest.approx(expected, abs=1e-4)
    # The threshold of a table leaves nothing out.
    assert min(result["relevance_score"] for result in details["results"]) < 0.48
    assert "score_threshold" not in details["meta"]


@pytest.mark.anyio
async def test_the_fake_engine_has_no_calibration() -> None:
    _, details = await answers(engine="fake")

    assert "normalized_score" not in details["results"][0]
