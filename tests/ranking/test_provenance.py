"""The header `rankd`: what scores were computed with."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd import __version__
from rankd.dialects import DIALECTS
from rankd.dialects.base import Dialect
from rankd.engines.base import EngineInfo
from rankd.models.checkpoint import BUILTIN, Checkpoint, locate
from rankd.prompts import open_encoder, qwen3
from rankd.ranking.provenance import Provenance
from support.dialects import example, home
from support.headers import parsed

INFO = EngineInfo("native", "m", "r", "cpu", "float32", 8192)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: type(dialect).__name__)
def test_every_ranking_has_the_same_provenance_as_the_version_endpoint(
    client: TestClient, dialect: Dialect
) -> None:
    reply = client.post(home(dialect), json=example(dialect))

    fields = parsed(reply.headers["rankd"])
    assert fields == client.get("/version").json()
    assert (fields["engine"], fields["model"], fields["deterministic"]) == ("fake", "builtin", True)
    assert fields["version"] == __version__
    assert re.fullmatch("[0-9a-f]{12}", str(fields["template"]))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/score", {"text_1": "q", "text_2": ["d"]}),
        ("/invocations", {"text_1": "q", "text_2": ["d"]}),
        ("/simple/batch_rerank", {"queries": ["q"], "documents": ["d"]}),
    ],
)
def test_other_scoring_endpoints_have_a_provenance_too(
    client: TestClient, path: str, body: dict[str, Any]
) -> None:
    reply = client.post(path, json=body)

    assert parsed(reply.headers["rankd"]) == client.get("/version").json()


def test_a_refused_request_has_no_provenance(client: TestClient) -> None:
    assert "rankd" not in client.post("/v1/rerank", json={}).headers


def test_the_metrics_have_a_provenance_and_info_has_none(client: TestClient) -> None:
    assert "rankd" not in client.get("/info").headers
    [line] = [
        line
        for line in client.get("/metrics").text.splitlines()
        if line.startswith("rankd_served_info{")
    ]
    fields = dict(re.findall(r'(\w+)="([^"]*)"', line))
    version = client.get("/version").json()
    assert fields == version | {"deterministic": str(version["deterministic"]).lower()}


@pytest.mark.parametrize("name", ["plain", 'a "b" \\c', "模型 50%", "é", "tab\there", "\x7f"])
def test_any_model_name_makes_a_valid_structured_field(name: str) -> None:
    info = EngineInfo("native", name, "r", "cpu", "float32", 8192, "1.0")

    header = Provenance.of(info, "0123456789ab").header["rankd"]

    assert header.isascii()
    assert parsed(header)["model"] == name
    assert parsed(header)["arithmetic"] == "native 1.0"


def _template(folder: Path, **more: Any) -> str:
    fields = {"max_tokens": 8192, "instruction": "Judge", "max_instruction_tokens": 512, **more}
    return open_encoder(Checkpoint(folder, "test", {}), **fields).template


def test_the_template_digest_depends_on_the_prompt_only(qwen: Path) -> None:
    builtin = locate(BUILTIN).path
    ours = _template(builtin)

    assert _template(builtin) == ours
    assert _template(builtin, max_tokens=512) == ours
    assert _template(builtin, instruction="Find") != ours
    assert _template(qwen) != ours  # The same text in other tokens.


def test_another_text_around_query_and_document_changes_the_template_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    builtin = locate(BUILTIN).path
    ours = _template(builtin)
    other = replace(qwen3.TEMPLATE, after=("<|im_end|>\n<|im_start|>assistant\n",))
    monkeypatch.setattr("rankd.prompts.qwen3.TEMPLATE", other)

    assert _template(builtin) != ours
