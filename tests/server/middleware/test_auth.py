"""API keys: accepted wherever clients send them, and required on all paths but the open ones."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient
from starlette.routing import Route

from rankd import dialects
from rankd.config.settings import Settings
from rankd.config.sources import load
from rankd.errors import BadSettings
from rankd.server import health
from support.calling import calling

KEYS = ("first-key", "second kéy")
BODY = {"query": "q", "documents": ["d"]}


@pytest.fixture(scope="module")
def guarded() -> Iterator[TestClient]:
    settings = Settings(engine="fake", api_keys=KEYS, strict_model=True)
    with calling(settings) as client:
        yield client


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def signature(key: str) -> str:
    """The header of an AWS client, which signs with a secret key that rankd does not know."""
    return (
        f"AWS4-HMAC-SHA256 Credential={key}/20261130/us-east-1/bedrock/aws4_request, "
        f"SignedHeaders=content-type;host;x-amz-date, Signature={'0f' * 32}"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "Bearer first-key"),
        ("authorization", "bearer first-key"),
        ("Authorization", "BEARER  first-key "),
        ("Authorization", "ApiKey first-key"),
        ("Authorization", "Token first-key"),
        ("Authorization", "first-key"),
        ("Authorization", basic("key", "first-key")),
        ("Authorization", basic("", "first-key")),
        ("Authorization", basic("key", "second kéy")),
        ("api-key", "first-key"),
        ("Api-Key", "first-key"),
        ("x-api-key", "first-key"),
        ("x-goog-api-key", "first-key"),
        ("Authorization", signature("first-key")),
        ("Authorization", signature("first-key").replace(", ", ",")),
    ],
)
def test_a_key_is_accepted_where_clients_send_it(
    guarded: TestClient, name: str, value: str
) -> None:
    assert guarded.post("/v1/rerank", json=BODY, headers={name: value}).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "Bearer first-ke"),
        ("Authorization", "Bearer first-keyy"),
        ("Authorization", "Bearer "),
        ("Authorization", "Bearer None"),
        ("Authorization", "Digest first-key"),
        ("Authorization", basic("first-key", "other")),
        ("Authorization", "Basic first-key"),
        ("Authorization", ""),
        ("x-other", "first-key"),
        ("api-key", "FIRST-KEY"),
        ("Authorization", signature("first-ke")),
        ("Authorization", signature("first-key/20261130")),
        ("Authorization", "AWS4-HMAC-SHA256 Credential=first-key"),
        ("Authorization", "AWS4-HMAC-SHA256 Signature=first-key"),
    ],
)
def test_anything_else_is_a_401_with_the_words_that_clients_look_for(
    guarded: TestClient, name: str, value: str
) -> None:
    reply = guarded.post("/v1/rerank", json=BODY, headers={name: value})

    assert reply.status_code == 401
    assert "invalid api token" in reply.json()["message"]
    assert reply.headers["www-authenticate"] == "Bearer"
    assert "first-key" not in reply.text


@pytest.mark.parametrize(
    ("headers", "query", "found"),
    [
        ({}, "", "no key was sent"),
        ({"authorization": "Bearer s3cret"}, "", "the key in Authorization is not known here"),
        ({"authorization": "s3cret"}, "", "the key in Authorization is not known here"),
        ({"x-api-key": "s3cret"}, "", "the key in x-api-key is not known here"),
        ({"authorization": "Bearer Bearer first-key"}, "", "holds a scheme too many (Bearer)"),
        ({"api-key": "Bearer first-key"}, "", "api-key holds a scheme before the key (Bearer)"),
        ({"authorization": 'Bearer "first-key"'}, "", "the key in Authorization is in quotes"),
        ({"authorization": "'first-key'"}, "", "the key in Authorization is in quotes"),
        ({"authorization": '"Bearer first-key"'}, "", "the key in Authorization is in quotes"),
        ({"authorization": "Bearer “first-key”"}, "", "the key in Authorization is in quotes"),
        ({"authorization": "Api-Key first-key"}, "", "the scheme Api-Key in Authorization"),
        ({"authorization": "Bearer: first-key"}, "", "the scheme Bearer: in Authorization"),
        ({"authorization": "s3cret s3cret"}, "", "the scheme in Authorization is not known"),
        ({"authorization": "Bearer s3cret s3cret"}, "", "the key in Authorization holds a blank"),
        ({"authorization": "Bearer"}, "", "the key in Authorization is empty"),
        ({"authorization": "Bearer None"}, "", "Authorization holds a placeholder"),
        ({"authorization": "Bearer ${API_KEY}"}, "", "Authorization holds a placeholder"),
        ({"authorization": "Bearer $API_KEY"}, "", "Authorization holds a placeholder"),
        ({"authorization": "Bearer $s3cret!"}, "", "the key in Authorization is not known here"),
        ({"authorization": "Bearer <your key>"}, "", "Authorization holds a placeholder"),
        ({"authorization": basic("key", "s3cret")}, "", "the password of Basic authentication"),
        ({"ocp-apim-subscription-key": "first-key"}, "", "in the header ocp-apim-subscription-key"),
        ({}, "?api_key=first-key", "a key in the URL's query is not read"),
        ({}, "?a=1&token=first-key", "a key in the URL's query is not read"),
        ({}, "?monkey=1", "no key was sent"),
    ],
)
def test_a_401_says_what_was_found_without_the_key(
    guarded: TestClient, headers: dict[str, str], query: str, found: str
) -> None:
    sent = {name.encode(): value.encode() for name, value in headers.items()}
    reply = guarded.post(f"/v1/rerank{query}", json=BODY, headers=sent)

    message = reply.json()["message"]
    assert reply.status_code == 401
    assert message.startswith("invalid api token: ")
    assert found in message
    assert message.endswith("; send `Authorization: Bearer KEY`")
    assert "s3cret" not in reply.text
    assert "first-key" not in reply.text


@pytest.mark.parametrize(
    ("path", "field"),
    [("/tei/rerank", "error_type"), ("/cohere/v2/rerank", "id"), ("/v1/ranking", "object")],
)
def test_a_401_has_the_format_of_the_dialect(guarded: TestClient, path: str, field: str) -> None:
    assert field in guarded.post(path, json={}).json()


@pytest.mark.slow
def test_every_path_but_the_open_ones_needs_a_key(guarded: TestClient) -> None:
    routes = [route for route in guarded.app.routes if isinstance(route, Route)]  # type: ignore[attr-defined]
    served = {(method, route.path) for route in routes for method in route.methods or ()}
    served |= {("POST", spec.path) for spec in dialects.route_specs()}
    prefixed = {
        (method, f"/{prefix}{path}") for method, path in served for prefix in dialects.PREFIXES
    }
    assert len(served) > 100
    for method, path in served | prefixed:
        status = guarded.request(method, path.replace("{model:path}", "some/model")).status_code
        is_open = method in ("GET", "HEAD") and health.is_open(without_prefix(path))
        assert (status != 401) is is_open, f"{method} {path}: {status}"


def without_prefix(path: str) -> str:
    first, _, rest = path[1:].partition("/")
    return f"/{rest}" if first in dialects.PREFIXES else path


def test_the_open_paths_are_all_served(guarded: TestClient) -> None:
    for path in health.OPEN_PATHS:
        assert guarded.get(path).status_code in (200, 204), path


def test_a_post_to_an_open_path_needs_a_key(guarded: TestClient) -> None:
    assert guarded.post("/", json={"query": "q", "texts": ["d"]}).status_code == 401


def test_an_unknown_path_needs_a_key(guarded: TestClient) -> None:
    assert guarded.get("/v1/nothing").status_code == 401


def test_xinferences_client_can_ask_whether_keys_are_needed(
    client: TestClient, guarded: TestClient
) -> None:
    assert client.get("/v1/cluster/auth").json() == {"auth": False}
    assert guarded.get("/v1/cluster/auth").json() == {"auth": True}


@pytest.mark.parametrize("sent", ["Bearer None", "Bearer undefined", "Bearer fake-api-key", "x"])
def test_without_keys_any_key_is_accepted(client: TestClient, sent: str) -> None:
    reply = client.post("/v1/rerank", json=BODY, headers={"Authorization": sent})

    assert reply.status_code == 200


def test_a_strict_server_refuses_other_models(guarded: TestClient) -> None:
    bearer = {"Authorization": "Bearer first-key"}
    other = guarded.post("/v1/rerank", json={**BODY, "model": "gpt"}, headers=bearer)
    ours = guarded.post("/v1/rerank", json={**BODY, "model": "builtin"}, headers=bearer)
    listed = guarded.get("/v1/models/gpt")

    assert ours.status_code == 200
    assert (other.status_code, listed.status_code) == (404, 404)
    assert other.json()["error"]["param"] == "model"
    assert other.json()["message"] == "model 'gpt' is not served here; use 'builtin'"


def test_keys_are_settings_and_never_quoted_in_errors() -> None:
    assert load({}, {"RANKD_API_KEYS": '["a", "b"]'}).api_keys == ("a", "b")
    assert load({"api_keys": ["a"]}, {}).api_keys == ("a",)
    for wrong in ('["s3cret", ""]', '["s3cret "]', "s3cret", '{"s3cret": 1}'):
        with pytest.raises(BadSettings) as refused:
            load({}, {"RANKD_API_KEYS": wrong})
        assert "s3cret" not in str(refused.value)
