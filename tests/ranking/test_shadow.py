"""Shadow scoring: what is compared, with what, and that answers never change or wait."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY

from rankd.config.experiments import Shadow
from rankd.config.settings import Settings
from rankd.errors import BadSettings
from rankd.ranking.profiles import Profile
from rankd.ranking.service import ModelService
from rankd.ranking.shadow import ShadowTraffic, ShadowTraffics
from rankd.ranking.shadow_log import digest_of
from rankd.server.app import open_app
from rankd.types import RankRequest, RankResult, RankUsage, ScoredDocument
from support.servers import serving

pytestmark = pytest.mark.anyio

DOCUMENTS = ["a fox is an animal", "bread", "a fox ran", "what is a fox"]
BODY = {"query": "what is a fox?", "documents": DOCUMENTS}
FAKE: dict[str, Any] = {
    "engine": "fake",
    "instructions": {"short": "Find short answers"},
    "aliases": {"brief": {"preset": "short", "max_tokens_per_doc": 2}},
}


async def compared(
    table: dict[str, Any], *bodies: dict[str, Any], **settings: Any
) -> tuple[list[httpx.Response], dict[str, float]]:
    """The answers of a server with one shadow, and its metrics after all comparisons."""
    table = {"name": "new", "share": 1, **table}
    async with open_app(Settings(**{**FAKE, "shadow": [table], **settings})) as app:
        return await asked(app, bodies)


async def asked(
    app: FastAPI, bodies: Sequence[dict[str, Any]]
) -> tuple[list[httpx.Response], dict[str, float]]:
    transport = httpx.ASGITransport(app=app)
    before = samples()
    async with httpx.AsyncClient(transport=transport, base_url="http://rankd") as client:
        answers = [await client.post("/v1/rerank", json=body) for body in bodies or (BODY,)]
    service: ModelService = app.state.service
    assert service.shadows is not None
    await service.shadows.finished()
    return answers, {name: value - before[name] for name, value in samples().items()}


def samples() -> dict[str, float]:
    """Of the shadow `new`, by outcome and by metric, and the documents of clients."""
    found = {
        outcome: REGISTRY.get_sample_value(
            "rankd_shadow_requests_total", {"shadow": "new", "outcome": outcome}
        )
        for outcome in ("compared", "failed", "dropped")
    }
    for name in ("same_top_total", "kendall_tau_sum", "overlap_count", "duration_seconds_count"):
        found[name] = REGISTRY.get_sample_value(f"rankd_shadow_{name}", {"shadow": "new"})
    found["documents"] = REGISTRY.get_sample_value("rankd_documents_total")
    return {name: value or 0 for name, value in found.items()}


async def test_a_request_is_scored_again_and_the_answer_is_as_without() -> None:
    [answer], metrics = await compared({"preset": "short"})
    async with open_app(Settings(**FAKE)) as app:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://rankd") as client:
            plain = await client.post("/v1/rerank", json=BODY)

    same = {"results", "usage"}
    assert {name: answer.json()[name] for name in same} == {
        name: plain.json()[name] for name in same
    }
    assert metrics["compared"] == 1
    assert metrics["same_top_total"] == 1
    assert metrics["kendall_tau_sum"] == 1
    assert metrics["overlap_count"] == 1
    assert metrics["duration_seconds_count"] == 1
    # The second scoring is not counted as a client's.
    assert metrics["documents"] == len(DOCUMENTS)


async def test_a_shadow_that_cuts_documents_scores_them_otherwise(tmp_path: Path) -> None:
    log = tmp_path / "lines.jsonl"
    _, metrics = await compared({"alias": "brief", "log": str(log)})
    [line] = map(json.loads, log.read_text().splitlines())

    assert metrics["compared"] == 1
    assert line["logits"] != line["shadow_logits"]


async def test_a_second_scoring_is_of_the_documents_alone(tmp_path: Path) -> None:
    """Without the sentences, chunks and other details that the answer has."""
    log = tmp_path / "lines.jsonl"
    details = {"relevant_spans": True, "return_details": True}
    bodies = [{**BODY, **details}, {**BODY, **details, "truncation": "chunk"}]
    _, metrics = await compared({"preset": "short", "log": str(log)}, *bodies)

    assert (metrics["compared"], metrics["failed"]) == (2, 0)
    lines = list(map(json.loads, log.read_text().splitlines()))
    assert [len(line["shadow_logits"]) for line in lines] == [len(DOCUMENTS)] * 2


@pytest.mark.parametrize("for_preset", [None, "short"])
async def test_only_requests_of_one_instruction_are_compared(for_preset: str | None) -> None:
    bodies = [BODY, {**BODY, "preset": "short"}, {**BODY, "instruction": "Find"}]
    _, metrics = await compared({"preset": "short", "for_preset": for_preset}, *bodies)

    assert metrics["compared"] == 1


async def test_partial_answers_and_batch_lines_are_not_compared() -> None:
    traffic, scored = traffic_of({"preset": "short"}, never)
    request = RankRequest("q", ("a", "b"), background=True)

    def result(documents: list[ScoredDocument]) -> RankResult:
        return RankResult([documents], documents, [], RankUsage(2, 0, 2, 0, 1))

    traffics = ShadowTraffics([traffic])
    traffics.offer([request], result(scored), Profile())
    traffics.offer([RankRequest("q", ("a", "b"))], result(scored[:1]), Profile())

    assert traffic.pending == 0


async def never(request: RankRequest) -> Sequence[float]:
    await asyncio.Event().wait()
    raise AssertionError


def traffic_of(
    table: dict[str, Any],
    scorer: Callable[[RankRequest], Awaitable[Sequence[float]]],
    chance: Callable[[], float] = lambda: 0.0,
) -> tuple[ShadowTraffic, list[ScoredDocument]]:
    traffic = ShadowTraffic(Shadow(name="new", **{"share": 1, **table}), scorer, None, chance)
    return traffic, [ScoredDocument(index, 1.0 - index, 5, 2, 2) for index in range(2)]


async def test_what_cannot_be_scored_soon_is_dropped() -> None:
    traffic, scored = traffic_of({"preset": "short", "max_pending": 3}, never)
    for _ in range(5):
        traffic.offer(RankRequest("q", ("a", "b")), scored, "default")
    full = traffic.pending
    await traffic.close()

    assert full == 3
    assert traffic.pending == 0


async def test_texts_that_wait_are_bounded() -> None:
    traffic, scored = traffic_of({"preset": "short"}, never)
    long = RankRequest("q", ("a" * 15_000_000, "b"))
    for _ in range(5):
        traffic.offer(long, scored, "default")
    full = traffic.pending
    await traffic.close()

    assert full == 2


async def test_the_share_decides() -> None:
    draws = iter([0.1, 0.3, 0.2, 0.9])
    traffic, scored = traffic_of({"preset": "short", "share": 0.25}, never, lambda: next(draws))
    for _ in range(4):
        traffic.offer(RankRequest("q", ("a", "b")), scored, "default")
    chosen = traffic.pending
    await traffic.close()

    assert chosen == 2


async def test_a_scorer_that_fails_is_logged_once_and_paused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = 0

    async def broken(request: RankRequest) -> Sequence[float]:
        nonlocal calls
        calls += 1
        raise ValueError("no such luck")

    traffic, scored = traffic_of({"preset": "short"}, broken)
    for _ in range(5):
        traffic.offer(RankRequest("q", ("a", "b")), scored, "default")
        await traffic.finished()

    assert calls == 1
    assert [record.getMessage() for record in caplog.records] == [
        "the second scoring of shadow 'new' failed: no such luck; requests are answered and not "
        "compared"
    ]


async def test_a_scorer_that_hangs_ends_at_its_timeout() -> None:
    traffic, scored = traffic_of({"preset": "short", "timeout_seconds": 0.05}, never)
    traffic.offer(RankRequest("q", ("a", "b")), scored, "default")
    await traffic.finished()

    assert traffic.pending == 0


async def test_lines_hold_digests_or_texts(tmp_path: Path) -> None:
    log = tmp_path / "lines.jsonl"
    await compared({"preset": "short", "log": str(log)})
    await compared({"preset": "short", "log": str(log), "texts": True})
    digests, texts = map(json.loads, log.read_text().splitlines())

    assert digests["query"] == digest_of(BODY["query"])  # type: ignore[arg-type]
    assert digests["documents"] == list(map(digest_of, DOCUMENTS))
    assert (texts["query"], texts["documents"]) == (BODY["query"], DOCUMENTS)
    assert len(digests["logits"]) == len(digests["shadow_logits"]) == len(DOCUMENTS)
    assert (digests["shadow"], digests["tau"], digests["same_top"]) == ("new", 1, True)
    assert log.stat().st_mode & 0o777 == 0o600


async def test_a_full_log_ends_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = tmp_path / "lines.jsonl"
    log.write_bytes(b"\n" * (1024 * 1024 - 10))
    _, metrics = await compared({"preset": "short", "log": str(log), "log_mb": 1}, BODY, BODY)

    assert metrics["compared"] == 2
    assert log.stat().st_size == 1024 * 1024 - 10
    [warning] = [one.getMessage() for one in caplog.records if "lines.jsonl" in one.getMessage()]
    assert "has reached its maximum of 1,048,576 bytes" in warning


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"log": "/nowhere/x"}, "shadow 'new': cannot write /nowhere/x: No such file"),
        ({"url": "http://a", "api_key_file": "/nowhere/k"}, "cannot read api_key_file"),
    ],
)
async def test_files_that_cannot_be_used_stop_the_start(
    table: dict[str, str], message: str
) -> None:
    with pytest.raises(BadSettings, match=message):
        await compared({"preset": "short", **table})


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "none of instruction, preset, alias and url"),
        ({"preset": "short", "instruction": "Find"}, "has instruction and preset: keep one"),
        ({"preset": "short", "api_key_file": "k"}, "api_key_file means nothing without url"),
        ({"preset": "short", "texts": True}, "texts means nothing without log"),
        ({"url": "example.com"}, "must begin with http:// or https://"),
        ({"alias": "breif"}, "'breif' is not in"),
    ],
)
async def test_wrong_tables_are_named(table: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        await compared(table)


@pytest.mark.slow
async def test_another_server_scores_with_its_own_model(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k\n")
    with serving("--engine", "fake", "--api-key", "k") as other:
        table = {"url": other.url, "api_key_file": str(key)}
        _, metrics = await compared(table, BODY, {**BODY, "instruction": "Find"})
        async with httpx.AsyncClient(headers={"authorization": "Bearer k"}) as client:
            page = (await client.get(f"{other.url}/metrics")).text

    assert metrics["compared"] == 2
    assert metrics["kendall_tau_sum"] == 2
    assert 'rankd_instruction_requests_total{preset="custom"} 1.0' in page


@pytest.mark.slow
@pytest.mark.parametrize("how", ["hangs", "dies", "refuses"])
async def test_a_server_that_fails_changes_no_answer(how: str) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if how != "refuses":
            listener.listen()
        if how == "dies":
            threading.Thread(target=close_first, args=(listener,), daemon=True).start()
        table = {"url": f"http://127.0.0.1:{port}", "timeout_seconds": 1}
        answers, metrics = await compared(table, *[BODY] * 4)

    assert {answer.status_code for answer in answers} == {200}
    assert metrics["compared"] == 0
    assert metrics["failed"] >= 1
    assert metrics["failed"] + metrics["dropped"] == 4


def close_first(listener: socket.socket) -> None:
    with suppress(OSError):
        listener.accept()[0].close()


@pytest.mark.slow
def test_a_stop_does_not_wait_for_a_shadow() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        shadow = json.dumps([{"name": "new", "share": 1, "url": url, "timeout_seconds": 3000}])
        with serving("--engine", "fake", "--shadow", shadow, "--drain-seconds", "900") as server:
            assert httpx.post(f"{server.url}/v1/rerank", json=BODY).status_code == 200
            status, errors = server.stop(signal.SIGTERM)

    assert status == 0
    assert "Traceback" not in errors
