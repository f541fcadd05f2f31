"""A server whose checkpoint states its instruction or its prompt; the engine is the fake one."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from rankd.config.settings import Settings
from rankd.config.tables import Calibration
from rankd.errors import BadSettings
from rankd.types import sigmoid
from support import layouts
from support.calling import calling
from support.client_prompts import BARE, TUTORIAL
from support.layouts import state

BODY = {"query": "What is gravity?", "documents": ["Gravity is a force.", "Beijing."]}


@pytest.fixture
def folder(builtin: Path, tmp_path: Path) -> Path:
    """The built-in model's files, without statements."""
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).symlink_to(builtin / name)
    return tmp_path


def settings(folder: Path, **more: Any) -> Settings:
    return Settings(model=str(folder), engine="fake", cache_mb=0, **more)


def answer(settings: Settings, path: str = "/v1/rerank", **fields: Any) -> dict[str, Any]:
    with calling(settings) as client:
        response = client.post(path, json=BODY | fields)
    body: dict[str, Any] = response.json()
    return {"status": response.status_code, "headers": dict(response.headers)} | body


def test_a_saved_default_instruction_is_the_servers_and_said_at_start(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state(folder, answers=None, prompt="Find code.")

    with caplog.at_level(logging.INFO, "rankd"):
        default = answer(settings(folder))

    explicit = answer(settings(folder), instruction="Find code.")
    other = answer(settings(folder), instruction="Given a web search query, find passages")
    file = "config_sentence_transformers.json"
    assert f"read {file}: default instruction (own): 'Find code.'" in caplog.text
    assert default["results"] == explicit["results"]
    assert default["usage"] == explicit["usage"]
    assert other["usage"] != default["usage"]


def test_a_calibration_of_default_belongs_to_the_saved_instruction(folder: Path) -> None:
    state(folder, answers=None, prompt="Find code.")
    table = Calibration(threshold=1.0, instruction="Find code.")

    found = answer(settings(folder, calibration={"default": table}))

    assert found["status"] == 200
    assert found["results"] == []


@pytest.mark.parametrize(
    ("stated", "measured"),
    [("Find code.", Settings().instruction), (None, "Find code.")],
    ids=["the usual one", "that of another checkpoint"],
)
def test_a_calibration_of_default_for_another_instruction_stops_the_start(
    stated: str | None, measured: str, folder: Path
) -> None:
    state(folder, answers=None, prompt=stated)
    table = Calibration(threshold=1.0, instruction=measured)

    with (
        pytest.raises(BadSettings, match="calibration: default was measured with another text"),
        calling(settings(folder, calibration={"default": table})),
    ):
        pass


def test_the_operators_instruction_wins_over_the_saved_one(folder: Path) -> None:
    state(folder, answers=None, prompt="Find code.")
    own = "Given a question of medicine, find studies that answer it"

    chosen = answer(settings(folder, instruction=own))
    preset = answer(settings(folder, instructions={"medicine": own}), preset="medicine")

    (folder / "config_sentence_transformers.json").unlink()
    plain = answer(settings(folder, instruction=own))
    assert chosen["results"] == preset["results"] == plain["results"]
    assert chosen["headers"]["rankd"] == plain["headers"]["rankd"]


def test_the_provenance_names_another_template(folder: Path) -> None:
    plain = answer(settings(folder))
    state(folder, answers=None, template=layouts.TURNS)

    stated = answer(settings(folder))

    assert stated["status"] == 200
    assert stated["headers"]["rankd"] != plain["headers"]["rankd"]


@pytest.mark.parametrize(
    ("path", "message"),
    [("/v1/rerank", ("error", "message")), ("/cohere/v2/rerank", ("message",))],
)
def test_an_instruction_without_a_place_is_a_400_in_the_callers_format(
    path: str, message: tuple[str, ...], folder: Path
) -> None:
    state(folder, answers=None, template=layouts.TURNS)

    refused: Any = answer(settings(folder), path, instruction="Find code.")

    assert refused["status"] == 400
    for name in message:
        refused = refused[name]
    assert "this model's prompt has no place for an instruction: leave it out" in refused


@pytest.mark.parametrize("path", ["/v1/rerank", "/batch_rerank", "/simple/batch_rerank"])
def test_a_clients_frame_is_taken_off_and_its_instruction_without_a_place_dropped(
    path: str, folder: Path
) -> None:
    state(folder, answers=None, template=layouts.TURNS)

    with calling(settings(folder)) as client:
        plain, framed = (
            client.post(path, json=body if path == "/v1/rerank" else {"pairs": [body]})
            for body in (BARE, TUTORIAL)
        )
        lines = client.post("/v1/rerank", json=TUTORIAL, headers={"accept": "application/x-ndjson"})

    assert plain.status_code == framed.status_code == lines.status_code == 200, framed.text
    assert framed.headers["x-rankd-usage"] == plain.headers["x-rankd-usage"]
    assert scores_in(framed.text) == scores_in(plain.text)
    for reply in (framed, lines):
        warning = reply.headers["x-rankd-warnings"]
        assert "its instruction ignored, because the prompt of this model has none" in warning
        assert 'as "instruction"' not in warning


def scores_in(text: str) -> list[str]:
    return re.findall(r"0\.\d+", text)


@pytest.mark.parametrize(
    ("more", "name"),
    [({"instruction": "Find."}, "instruction"), ({"instructions": {"x": "y"}}, "instructions")],
)
def test_configured_instructions_without_a_place_stop_the_start(
    more: dict[str, Any], name: str, folder: Path
) -> None:
    state(folder, answers=None, template=layouts.TURNS)

    with (
        pytest.raises(BadSettings, match=f"^{name}: the prompt of .* has no place for one"),
        calling(settings(folder, **more)),
    ):
        pass


def test_a_document_before_the_query_is_scored_with_both(folder: Path) -> None:
    state(folder, answers=None, template=layouts.DOCUMENT_FIRST)

    result = answer(settings(folder), return_documents=True)

    scores = {row["index"]: row["relevance_score"] for row in result["results"]}
    assert result["status"] == 200
    assert scores.keys() == {0, 1}
    assert all(0 < score < sigmoid(6) for score in scores.values())
