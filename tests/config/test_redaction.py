"""Logs, metrics and printed settings contain no user texts and no secrets; CORS; deep JSON."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.config.show import shown
from rankd.config.sources import load, sources
from rankd.engines.base import Slots
from rankd.errors import BadSettings
from rankd.ranking.scheduler import Scheduler
from rankd.server.app import open_app
from rankd.types import Prompt
from support.servers import run, serving

CANARY = "canary-5f3a"
BODY = {"query": CANARY, "documents": [f"{CANARY} sings"], "instruction": CANARY}
WRONG: list[Any] = [
    {"query": [CANARY], "documents": CANARY},
    {"query": CANARY, "documents": [{CANARY: {CANARY: CANARY}}], "rank_fields": [1]},
    {**BODY, "top_n": CANARY},
    {**BODY, CANARY: CANARY},
    {**BODY, "truncation": CANARY},
    {"query": CANARY, "documents": [CANARY] * 30},
    {"query": f"{CANARY} " * 9000, "documents": ["d"]},
    CANARY,
]


@contextmanager
def app(**options: Any) -> Iterator[TestClient]:
    with asyncio.Runner() as runner:
        context = open_app(Settings(engine="fake", **options))
        yield TestClient(runner.run(context.__aenter__()), raise_server_exceptions=False)
        runner.run(context.__aexit__(None, None, None))


def test_no_text_of_a_request_is_logged_whatever_its_status() -> None:
    with serving(
        *("--engine", "fake", "--log-level", "debug", "--max-documents", "20"),
        *("--api-key", "k3y-canary"),
    ) as server:
        headers = {"Authorization": "Bearer k3y-canary"}
        url = f"{server.url}/v1/rerank"
        statuses = [httpx.post(url, json=BODY, headers=headers).status_code]
        for body in WRONG:
            statuses.append(httpx.post(url, json=body, headers=headers).status_code)
        broken = f'{{"query": "{CANARY}"'.encode()
        statuses.append(httpx.post(url, content=broken, headers=headers).status_code)
        statuses.append(httpx.post(f"{url}?q={CANARY}", json=BODY, headers=headers).status_code)
        wrong = {"Authorization": f"Bearer {CANARY}"}
        statuses.append(httpx.post(url, json=BODY, headers=wrong).status_code)
        metrics = httpx.get(f"{server.url}/metrics", headers=headers).text
        _, log = server.stop(signal.SIGTERM)

    assert {200, 400, 401, 413} <= set(statuses)
    assert log.count("rankd.access") >= len(statuses)
    for secret in (CANARY, "k3y-canary"):
        assert secret not in log
        assert secret not in metrics


class Crashing:
    """An engine whose errors quote its input."""

    def __init__(self, info: Any) -> None:
        self.info = info
        self.slots = Slots(1, eager=1)

    async def score(self, batch: Sequence[Prompt]) -> list[float]:
        try:
            raise KeyError(CANARY)
        except KeyError as problem:
            raise ValueError(f"no score for {CANARY}") from problem

    async def check(self) -> None:
        """It is always healthy."""


def test_a_crash_is_logged_with_its_location_but_without_its_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with app() as client, caplog.at_level(logging.DEBUG):
        ranker = client.app.state.service.ranker  # type: ignore[attr-defined]
        ranker.scheduler = Scheduler(Crashing(ranker.engine.info))
        reply = client.post("/v1/rerank", json=BODY)
        log = "\n".join(logging.Formatter().format(record) for record in caplog.records)

    assert reply.status_code == 500
    assert CANARY not in reply.text
    assert CANARY not in log
    assert "POST /v1/rerank failed: ValueError" in log
    assert "caused by KeyError" in log
    assert "test_redaction.py" in log


def test_print_config_is_a_file_without_secrets(tmp_path: Any) -> None:
    ended = run(
        *("serve", "--print-config", "--port", "9", "--ssl-keyfile-password", CANARY),
        *("--vllm-args", f'{{"hf_token": "{CANARY}", "nested": {{"api_key": "{CANARY}"}}}}'),
        RANKD_API_KEYS=f'["{CANARY}", "sha256:{"0" * 64}"]',
    )
    printed = tomllib.loads(ended.stdout)

    assert ended.returncode == 0
    assert CANARY not in ended.stdout + ended.stderr
    assert "0" * 64 not in ended.stdout
    assert printed["api_keys"] == ["***", "***"]
    assert printed["vllm"] == {"hf_token": "***", "nested": {"api_key": "***"}}
    assert "port = 9  # flag" in ended.stdout
    assert 'api_keys = ["***", "***"]  # environment' in ended.stdout
    assert "max_documents = 1000  # default" in ended.stdout


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{CANARY}@host:6379/0",
        f"rediss://user:{CANARY}@{CANARY}@host/0",
        f"redis://host/0?db=1&password={CANARY}",
    ],
)
def test_passwords_in_redis_urls_are_redacted(url: str) -> None:
    settings = Settings(cache_redis=url, limits_redis=url)
    printed = tomllib.loads(shown(settings, sources({"cache_redis": url}, {})))

    assert CANARY not in repr(settings) + str(printed)
    assert printed["cache_redis"] == printed["limits_redis"]
    assert "host" in printed["cache_redis"]
    with pytest.raises(BadSettings) as refusal:
        load({"cache_redis": [url], "limits_redis": url}, {})
    assert CANARY not in str(refusal.value)


@pytest.mark.parametrize(
    "name",
    [
        *("hf_token", "HF_TOKEN", "apiKey", "X-Api-Key", "aws_secret_access_key", "access_key"),
        *("accessToken", "tokens", "passphrase", "db_password", "pwd", "Authorization", "auth"),
        *("private-key", "Cookie", "client_secret", "credentials"),
    ],
)
def test_secret_names_of_any_spelling_are_redacted(name: str) -> None:
    settings = Settings(vllm_args={"deep": [{name: CANARY}], name: [CANARY]})

    assert CANARY not in shown(settings, {})
    assert CANARY not in repr(settings)


@pytest.mark.parametrize("text", [f"HF_TOKEN={CANARY}", f"redis://h/0?ssl_password={CANARY}&db=1"])
def test_a_secret_inside_a_text_is_redacted(text: str) -> None:
    assert CANARY not in shown(Settings(vllm_args={"env": [text]}), {})


@pytest.mark.parametrize(
    "name", ["max_num_batched_tokens", "tokenizer_mode", "block_size", "author", "keyboard"]
)
def test_other_names_are_not_redacted(name: str) -> None:
    assert f'"{name}" = 17' in shown(Settings(vllm_args={name: 17}), {})


@pytest.mark.parametrize("wrong", [f'{{"hf_token": "{CANARY}", ', f'["{CANARY}"]', f'"{CANARY}"'])
def test_errors_about_arguments_of_vllm_do_not_quote_them(wrong: str) -> None:
    with pytest.raises(BadSettings, match=r"^vllm_args = ") as refusal:
        load({"vllm_args": wrong}, {})

    assert CANARY not in str(refusal.value)


@pytest.mark.parametrize("shape", ["text", "json"])
def test_control_characters_of_a_path_are_escaped_in_the_log(shape: str) -> None:
    with serving("--engine", "fake", "--log-format", shape) as server:
        httpx.get(f"{server.url}/x%0A2026-01-01%20INFO%20forged%1B[31m%0d%7f%c2%85%e2%80%a8%c3%bc")
        _, log = server.stop(signal.SIGTERM)

    [line] = [line for line in log.split("\n") if "GET" in line]
    message = json.loads(line)["message"] if shape == "json" else line
    assert "/x\\n2026-01-01 INFO forged\\x1b[31m\\r\\x7f\\x85\\u2028\\xfc 404" in message
    assert not set(line) & set("\r\x1b\x7f\x85\u2028")


def test_printed_settings_can_be_loaded_again(tmp_path: Any) -> None:
    file = tmp_path / "rankd.toml"
    file.write_text(run("serve", "--print-config", "--port", "9").stdout)

    assert load({}, {}, file) == Settings(port=9)


def test_other_origins_are_allowed_only_by_cors_origins() -> None:
    preflight = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    with app() as closed:
        refused = closed.options("/v1/rerank", headers=preflight)
        plain = closed.post("/v1/rerank", json=BODY, headers={"Origin": "https://app.example"})
    with app(cors_origins="https://app.example,https://b.example", api_keys=["k"]) as opened:
        allowed = opened.options("/v1/rerank", headers=preflight)
        other = opened.options("/v1/rerank", headers={**preflight, "Origin": "https://evil.test"})
        unknown = opened.post("/v1/rerank", json=BODY, headers={"Origin": "https://app.example"})

    assert refused.status_code == 405
    assert "access-control-allow-origin" not in plain.headers
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    assert "access-control-allow-origin" not in other.headers
    assert unknown.status_code == 401


@pytest.mark.parametrize("origin", ["app.example", "https://app.example/", "https://", "null"])
def test_a_malformed_origin_is_refused(origin: str) -> None:
    with pytest.raises(Exception, match="is no origin"):
        load({"cors_origins": origin}, {})


@pytest.mark.parametrize("deep", ["[" * 64 + "]" * 64, '{"a":' * 64 + "1" + "}" * 64])
@pytest.mark.parametrize("half", ["", "\\ud83d"])
def test_a_body_nested_too_deep_is_a_400(client: TestClient, deep: str, half: str) -> None:
    body = f'{{"query": "q{half}", "documents": ["d"], "x": {deep}}}'
    within = (
        f'{{"query": "q{half}", "documents": ["d"], "x": {deep[1:-1] if deep[0] == "[" else 1}}}'
    )

    refused = client.post("/v1/rerank", content=body)

    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == "the body is nested more than 64 levels deep"
    assert client.post("/v1/rerank", content=within).status_code == 200


@pytest.mark.parametrize("levels", [1_000, 100_000])
def test_a_body_of_brackets_is_a_400(client: TestClient, levels: int) -> None:
    for body in ('{"a":' * levels + "1" + "}" * levels, "[" * levels, '{"\\ud83d":' * levels):
        assert client.post("/v1/rerank", content=body[:99_000]).status_code == 400


@pytest.mark.parametrize(("flags", "warned"), [([], True), (["--api-key", "k"], False)])
def test_a_reachable_server_without_keys_logs_a_warning(flags: list[str], warned: bool) -> None:
    with serving("--engine", "fake", "--access-log", *flags) as server:
        _, local = server.stop(signal.SIGTERM)
    # An address of no machine, so that the server never listens.
    ended = run("serve", "--engine", "fake", "--host", "203.0.113.1", "--port", "0", *flags)

    assert "anyone who reaches" not in local
    assert ("anyone who reaches 203.0.113.1 may use this server" in ended.stderr) is warned
