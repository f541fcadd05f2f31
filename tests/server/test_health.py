"""Health checks, version, model list, metrics, docs and request ids."""

from __future__ import annotations

import asyncio
from unittest import mock

import pytest
from fastapi.testclient import TestClient

from rankd import __version__, dialects
from rankd.dialects import nim, registry
from rankd.errors import EngineDown, SetupError


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health"])
def test_health_checks_return_200(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200
    assert client.head(path).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/simple/health", "/plain/health", "/jina/health"])
def test_health_says_which_model_is_loaded_on_which_device(client: TestClient, path: str) -> None:
    assert client.get(path).json() == {
        "status": "ready",
        "model_loaded": True,
        "model": "builtin",
        "device": "none",  # The fake engine's.
    }


def test_with_a_dead_engine_the_server_is_alive_but_not_ready(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dead() -> None:
        raise EngineDown("the engine died")

    monkeypatch.setattr(client.app.state.service.ranker.engine, "check", dead)  # type: ignore[attr-defined]

    assert {client.get(path).status_code for path in ("/readyz", "/health", "/")} == {503}
    assert client.get("/readyz").json()["error"]["code"] == "engine_down"
    assert client.get("/livez").status_code == 200


def test_the_version_has_engine_and_model(client: TestClient) -> None:
    answer = client.get("/version").json()

    assert answer["version"] == __version__
    assert (answer["engine"], answer["model"]) == ("fake", "builtin")


def test_the_served_model_is_listed_and_found_by_name(client: TestClient) -> None:
    [model] = client.get("/v1/models").json()["data"]

    assert model["id"] == "builtin"
    assert client.get("/v1/models/builtin").json() == model
    # Xinference's client requests the model by the name that it will send.
    assert client.get("/v1/models/some/other").json()["model_type"] == "rerank"


def test_metrics_count_documents_and_requests_by_route(client: TestClient) -> None:
    def documents() -> float:
        lines = client.get("/metrics").text.splitlines()
        [line] = [line for line in lines if line.startswith("rankd_documents_total ")]
        return float(line.split()[1])

    before = documents()
    client.post("/v1/rerank", json={"query": "q", "documents": ["a", "b"]})
    client.get("/some/scanner/path")

    assert documents() == before + 2
    text = client.get("/metrics").text
    assert 'rankd_requests_total{route="/v1/rerank",status="200"}' in text
    assert "scanner" not in text


def test_an_unknown_path_and_a_wrong_method_get_json_errors(client: TestClient) -> None:
    unknown = client.get("/v1/nothing")
    wrong = client.get("/v1/rerank")

    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"


def test_openapi_describes_the_request_body(client: TestClient) -> None:
    assert client.get("/docs").status_code == 200
    paths = client.get("/openapi.json").json()["paths"]
    body = paths["/cohere/v2/rerank"]["post"]["requestBody"]["content"]["application/json"]
    assert set(body["schema"]["required"]) == {"query", "documents"}
    assert body["schema"]["properties"]["documents"]["maxItems"] == 20


def test_a_valid_request_id_of_the_client_is_kept(client: TestClient) -> None:
    valid = client.get("/livez", headers={"X-Request-Id": "mine-1"})
    forged = client.get("/livez", headers={"X-Request-Id": "a b\tc"})

    assert valid.headers["x-request-id"] == "mine-1"
    assert forged.headers["x-request-id"] != "a b\tc"


def test_an_unexpected_exception_is_a_500_without_its_message(client: TestClient) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]
    with mock.patch.object(service.ranker.engine, "score", side_effect=ZeroDivisionError("secret")):
        reply = client.post("/v1/rerank", json={"query": "q", "documents": ["d"]})

    assert reply.status_code == 500
    assert reply.headers["x-request-id"]
    assert 'route="/v1/rerank",status="500"' in client.get("/metrics").text
    assert "secret" not in reply.text
    assert reply.json()["error"]["code"] == "internal_error"


def test_a_nan_score_is_a_500(client: TestClient) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]
    with mock.patch.object(service.ranker.engine, "score", return_value=[float("nan")]):
        reply = client.post("/v1/rerank", json={"query": "q", "documents": ["d"]})

    assert reply.status_code == 500
    assert "--dtype bfloat16" in reply.json()["error"]["message"]


def test_two_dialects_on_one_path_refuse_to_start() -> None:
    class Rival(nim.Nim):
        name = "rival"

    rivals = (*registry.DIALECTS, Rival())
    with (
        mock.patch("rankd.dialects.routes.DIALECTS", rivals),
        pytest.raises(SetupError, match="2 dialects answer POST /v1/ranking"),
    ):
        dialects.refuse_conflicts()
    dialects.refuse_conflicts()


@pytest.mark.anyio
async def test_an_invalid_request_does_not_affect_a_valid_one(client: TestClient) -> None:
    valid, invalid = await asyncio.gather(
        asyncio.to_thread(client.post, "/v1/rerank", json={"query": "q", "documents": ["d"]}),
        asyncio.to_thread(client.post, "/v1/rerank", json={"query": 1}),
    )

    assert (valid.status_code, invalid.status_code) == (200, 400)
