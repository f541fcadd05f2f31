"""Which instruction a request is judged by: presets, aliases and keys, in every dialect."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.config.sources import load
from rankd.errors import BadSettings, InvalidRequest
from rankd.ranking.profiles import Profiles
from support.scoring_endpoints import (
    ANIMALS,
    BODY,
    QUERY,
    Json,
    counted,
    every_endpoint,
    numbers,
    opened,
)

# The fake engine counts the words that a document shares with instruction and query, so each
# preset makes one more animal relevant.
PRESETS = {
    "first": " ".join(ANIMALS[:1]),
    "last": " ".join(ANIMALS[:2]),
    "every": " ".join(ANIMALS[:3]),
}
CUSTOM = " ".join(ANIMALS)
SETTINGS = {
    "engine": "fake",
    "cache_mb": 0,
    "strict_model": True,
    "instructions": PRESETS,
    "aliases": {"house/last": {"preset": "last"}, "bare": {}},
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("acme = key-of-acme\nother = key-of-other\n")
    with opened(**SETTINGS, api_keys_file=keys, key_presets={"acme": "every"}) as app:
        yield app


def post(client: TestClient, path: str, body: Json, key: str = "other", **fields: Any) -> Any:
    reply = client.post(path, json=body | fields, headers={"api-key": f"key-of-{key}"})
    assert reply.status_code == 200, reply.text
    return reply


@every_endpoint
def test_the_instruction_comes_from_text_then_preset_then_alias_then_key_then_server(
    client: TestClient, path: str, body: Json
) -> None:
    texts = {"default": Settings().instruction, **PRESETS, "custom": CUSTOM}
    replies = {name: post(client, path, body, instruction=texts[name]) for name in texts}
    expected = {name: numbers(reply.json()) for name, reply in replies.items()}
    steps: list[tuple[str, str, Json]] = [
        ("default", "other", {}),
        ("default", "other", {"model": "bare"}),
        ("every", "acme", {}),
        ("every", "acme", {"model": "bare"}),
        ("last", "acme", {"model": "house/last"}),
        ("first", "acme", {"model": "house/last", "preset": "first"}),
        ("default", "acme", {"model": "house/last", "preset": "default"}),
        ("custom", "acme", {"model": "house/last", "preset": "first", "instruction": CUSTOM}),
        ("last", "acme", {"model": "house/last", "preset": "", "instruction": ""}),
    ]

    assert len({tuple(scores) for scores in expected.values()}) == len(expected)
    for name, key, more in steps:
        assert numbers(post(client, path, body, key, **more).json()) == expected[name], (name, more)


@pytest.mark.parametrize(
    "path", ["/_inference/rerank/house/last", "/v1/retrieval/house/last/reranking"]
)
def test_a_model_in_the_path_may_be_an_alias(client: TestClient, path: str) -> None:
    body = {"query": QUERY, "input" if "_inference" in path else "passages": ANIMALS}

    by_path = post(client, path, body)
    by_text = post(client, path.replace("house/last", "builtin"), body, preset="last")

    assert numbers(by_path.json()) == numbers(by_text.json())


def test_dashscopes_sdk_can_send_preset_and_threshold_in_parameters(client: TestClient) -> None:
    path, body = "/dashscope/rerank", {"input": {"query": QUERY, "documents": ANIMALS}}
    whole = numbers(post(client, path, body, preset="first").json())

    inside: Json = {"preset": "first", "score_threshold": whole[0]}
    reply = post(client, path, body, parameters=inside)
    both = client.post(
        path,
        json=body | {"parameters": inside, "preset": "last"},
        headers={"api-key": "key-of-other"},
    )

    assert numbers(reply.json()) == whole[:1]
    assert "x-rankd-warnings" not in reply.headers
    assert both.status_code == 400
    assert both.json()["message"].startswith("preset and parameters.preset have different values")


@every_endpoint
def test_an_unknown_preset_is_a_400_that_lists_the_known_ones(
    client: TestClient, path: str, body: Json
) -> None:
    for more in ({}, {"instruction": CUSTOM}):
        reply = client.post(
            path, json=body | {"preset": "frist"} | more, headers={"api-key": "key-of-acme"}
        )

        assert reply.status_code == 400
        expected = (
            "preset 'frist' is not known; did you mean first?; this server has default, first, last"
        )
        assert reply.json()["message"].startswith(expected)


def test_the_message_of_a_server_without_presets_says_so() -> None:
    with pytest.raises(InvalidRequest, match="'code' is not known; this server has only 'default'"):
        Profiles(Settings()).choose(preset="code")


def test_the_response_names_the_preset_that_the_server_chose(client: TestClient) -> None:
    def preset(key: str, **more: Any) -> Any:
        return post(client, "/v1/rerank", BODY, key, **more).json()["meta"].get("preset")

    assert preset("acme") == "every"
    assert preset("acme", model="house/last") == "last"
    assert preset("acme", preset="first") == "first"
    assert preset("other") is None
    assert preset("other", instruction=CUSTOM) is None
    assert preset("other", instruction=PRESETS["first"]) == "first"


@every_endpoint
def test_every_ranking_has_a_header_with_its_instruction(
    client: TestClient, path: str, body: Json
) -> None:
    def instruction_header(key: str, **more: Any) -> str | None:
        header: str | None = post(client, path, body, key, **more).headers.get(
            "x-rankd-instruction"
        )
        return header

    texts = {**PRESETS, "custom": CUSTOM}
    digests = {name: sha256(text.encode()).hexdigest()[:12] for name, text in texts.items()}
    steps: list[tuple[str, str, Json]] = [
        ("every", "acme", {}),
        ("last", "acme", {"model": "house/last"}),
        ("first", "other", {"preset": "first"}),
        ("first", "other", {"instruction": PRESETS["first"]}),
        ("custom", "other", {"instruction": CUSTOM}),
    ]

    assert (
        instruction_header("other")
        is instruction_header("other", instruction=Settings().instruction)
        is None
    )
    for name, key, more in steps:
        assert instruction_header(key, **more) == f'preset="{name}", digest="{digests[name]}"'


def test_the_name_of_a_preset_sent_as_an_instruction_is_a_warning(client: TestClient) -> None:
    reply = post(client, "/v1/rerank", BODY, task="first")

    assert reply.json()["meta"]["warnings"] == [
        "the instruction 'first' was read as a text; to use the preset of that name, "
        "send \"preset\": 'first'"
    ]


def test_requests_are_counted_by_preset_and_never_by_text(client: TestClient) -> None:
    def counts() -> dict[str, float]:
        page = client.get("/metrics", headers={"api-key": "key-of-acme"}).text
        return counted(page, "rankd_instruction_requests_total{")

    before = counts()
    for key, more in (
        ("other", {}),
        ("acme", {}),
        ("acme", {"preset": "first"}),
        ("acme", {"instruction": "one"}),
        ("acme", {"instruction": "two"}),
    ):
        post(client, "/v1/rerank", BODY, key, **more)
    after = counts()

    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert {name: more for name, more in grown.items() if more} == {
        "default": 1,
        "every": 1,
        "first": 1,
        "custom": 2,
    }


def test_every_name_of_the_model_is_listed_and_accepted(client: TestClient) -> None:
    listed = client.get("/v1/models").json()["data"]
    single = client.get("/v1/models/house/last")
    reply = post(client, "/v1/rerank", BODY, model="house/last").json()
    other = client.post(
        "/v1/rerank", json=BODY | {"model": "house"}, headers={"api-key": "key-of-acme"}
    )

    assert [model["id"] for model in listed] == ["builtin", "house/last", "bare"]
    assert single.json()["id"] == "house/last"
    assert single.json()["model_name"] == "builtin"
    assert reply["model"] == "house/last"
    assert client.get("/v1/models/house").status_code == 404
    assert client.get("/info").json()["model_id"] == "builtin"
    assert other.status_code == 404
    assert other.json()["message"] == (
        "model 'house' is not served here; use 'builtin' or 'house/last' or 'bare'"
    )


# Configurations that stop the start.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"instructions": {"long": "do this " * 300}},
            r"instructions\.long takes \d+ tokens; the limit is 512",
        ),
        ({"aliases": {"builtin": {}}}, r"aliases\.builtin is the model's own name"),
        ({"aliases": {"x": {}}, "served_model_name": "x"}, r"aliases\.x is the model's own name"),
        (
            {"calibration": {"default": {"threshold": 0.5, "model": "Qwen/Qwen3-Reranker-4B"}}},
            r"calibration\.default was measured with 'Qwen/Qwen3-Reranker-4B', but the served "
            "model is 'builtin': calibrate again",
        ),
    ],
)
def test_a_configuration_that_does_not_fit_the_model_stops_the_start(
    settings: Json, message: str
) -> None:
    with pytest.raises(BadSettings, match=message), opened(**settings):
        pass


def test_a_preset_for_an_unknown_key_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("acme = key-of-acme\n")

    with opened(api_keys_file=keys, key_presets={"acne": "default"}):
        pass

    assert "key_presets names 'acne', which no key has; did you mean acme?" in caplog.text


def test_a_key_in_place_of_its_name_stops_the_start_and_is_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings: Json = {"api_keys": ["key-of-acme"], "key_presets": {"key-of-acme": "default"}}

    with (
        pytest.raises(BadSettings, match="key_presets contains a key") as refusal,
        opened(**settings),
    ):
        pass

    assert "key-of-acme" not in str(refusal.value) + caplog.text


def test_the_shipped_instructions_are_accepted() -> None:
    settings = load({"engine": "fake"}, {}, Path("configs/instructions-qwen3.toml"))

    assert settings.instructions
    with opened(instructions=settings.instructions) as client:
        for name in settings.instructions:
            reply = client.post("/v1/rerank", json=BODY | {"preset": name})
            assert reply.json()["meta"]["preset"] == name
    assert Settings().instruction in settings.instructions.values()
