"""A/B tests: who gets variant B, and what the answer says of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.config.experiments import Experiment
from rankd.config.settings import Settings
from rankd.config.sources import load
from rankd.errors import BadSettings
from rankd.ranking.experiments import Experiments, drawn
from support.calling import calling

BODY = {"query": "what is a fox?", "documents": ["a fox is an animal", "bread", "a fox ran"]}
SETTINGS = Settings(
    engine="fake",
    instructions={"short": "Find short answers"},
    aliases={"strict": {"preset": "short", "score_threshold": 0.999999}},
    ab=({"name": "length", "share": 0.5, "preset": "short"},),
)
USERS = [f"user {number}" for number in range(200)]


def in_b(experiment: Experiment) -> set[str]:
    return {user for user in USERS if drawn(experiment, ("", user))}


def test_about_the_share_gets_b_and_a_larger_share_keeps_them() -> None:
    small = in_b(Experiment(name="x", share=0.2, preset="short"))
    large = in_b(Experiment(name="x", share=0.6, preset="short"))

    assert 20 < len(small) < 60
    assert 90 < len(large) < 150
    assert small < large


def test_two_tests_draw_independently() -> None:
    one = in_b(Experiment(name="one", share=0.5, preset="short"))
    other = in_b(Experiment(name="other", share=0.5, preset="short"))

    assert 25 < len(one & other) < 75


def test_a_share_of_1_is_everybody() -> None:
    assert in_b(Experiment(name="x", share=1, preset="short")) == set(USERS)


def test_a_later_test_leaves_out_who_an_earlier_one_has_drawn() -> None:
    both = Experiments(
        [
            Experiment(name="one", share=0.5, preset="short"),
            Experiment(name="other", share=0.5, alias="strict"),
        ]
    )
    headers = {both.variant_for("", user).header["x-rankd-variant"] for user in USERS}

    assert headers == {"one=B", "one=A, other=B", "one=A, other=A"}


def test_the_identity_is_the_user_of_a_key_or_the_key() -> None:
    by_key = Experiments([Experiment(name="x", share=0.5, by="key", preset="short")])
    by_user = Experiments([Experiment(name="x", share=0.5, preset="short")])

    assert by_key.variant_for("key", "ann") == by_key.variant_for("key", "bob")
    assert by_key.variant_for("", "ann").header == {}
    assert by_user.variant_for("key", "").header == {}
    keys = {by_user.variant_for(f"key {number}", "ann").preset for number in range(50)}
    assert keys == {None, "short"}


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with calling(SETTINGS) as running:
        yield running


def variants(client: TestClient, **fields: Any) -> dict[str, Any]:
    """The answers by variant, of users who are in the test."""
    answers = {}
    for user in USERS[:20]:
        reply = client.post("/v1/rerank", json={**BODY, "user": user, **fields})
        answers[reply.headers.get("x-rankd-variant", "none")] = reply
    return answers


def test_b_is_answered_as_a_request_with_the_preset_and_a_as_one_without(
    client: TestClient,
) -> None:
    answers = variants(client)
    plain = client.post("/v1/rerank", json=BODY)
    preset = client.post("/v1/rerank", json={**BODY, "preset": "short"})

    assert set(answers) == {"length=A", "length=B"}
    # The instruction is in the prompt, so the tokens differ.
    assert answers["length=A"].json()["usage"] == plain.json()["usage"]
    assert answers["length=B"].json()["usage"] == preset.json()["usage"]
    assert plain.json()["usage"] != preset.json()["usage"]
    assert answers["length=B"].headers["x-rankd-instruction"].startswith('preset="short"')


@pytest.mark.parametrize(
    "fields", [{"instruction": "Find"}, {"preset": "default"}, {"model": "strict"}]
)
def test_requests_that_choose_for_themselves_take_no_part(
    client: TestClient, fields: dict[str, str]
) -> None:
    assert set(variants(client, **fields)) == {"none"}


def test_requests_without_an_identity_take_no_part(client: TestClient) -> None:
    assert "x-rankd-variant" not in client.post("/v1/rerank", json=BODY).headers


def test_a_user_with_half_a_surrogate_pair_is_drawn_too(client: TestClient) -> None:
    content = b'{"query": "q", "documents": ["a"], "user": "\\ud83d"}'
    reply = client.post("/v1/rerank", content=content)

    assert reply.status_code == 200
    assert reply.headers["x-rankd-variant"].startswith("length=")


@pytest.mark.parametrize("path", ["/v2/rerank", "/voyage/v1/rerank", "/v1/score", "/rerank"])
def test_every_dialect_takes_part(client: TestClient, path: str) -> None:
    body: dict[str, Any] = {**BODY, "user": "ann"}
    if path == "/v1/score":
        body = {"queries": "q", "documents": ["a"], "user": "ann"}
    reply = client.post(path, json=body)

    assert reply.status_code == 200
    assert reply.headers["x-rankd-variant"].startswith("length=")


def test_variants_are_counted(client: TestClient) -> None:
    variants(client)
    page = client.get("/metrics").text

    assert 'rankd_variant_requests_total{experiment="length",variant="B"}' in page


def test_b_may_be_an_alias_with_its_threshold() -> None:
    settings = SETTINGS.model_copy(update={"ab": (Experiment(name="x", share=1, alias="strict"),)})
    with calling(settings) as client:
        answer = client.post("/v1/rerank", json={**BODY, "user": "ann"}).json()

    assert answer["meta"]["below_threshold"] == 3
    assert answer["meta"]["preset"] == "short"


GOOD = 'name = "x"\nshare = 1\npreset = "default"'
WRONG = {
    'name = "x"\nshare = 0.5': "ab.0: x needs either preset or alias: its variant B",
    'name = "x"\nshare = 0.5\npreset = "a"\nalias = "b"': "x needs either preset or alias",
    'name = "x"\nshare = 0\npreset = "default"': "ab.0.share: input should be greater than 0, not",
    'name = "x"\nshare = 2\npreset = "default"': "ab.0.share: input should be less than or equal",
    'name = "x"\nshare = 1\npreset = "shrot"': "x: 'shrot' is neither in [instructions] nor",
    'name = "x"\nshare = 1\nalias = "y"': "x: 'y' is not in [aliases]",
    'name = "x y"\nshare = 1\npreset = "default"': "'x y' is no name",
    f"{GOOD}\nsahre = 2": "unknown setting ab.0.sahre",
    f"{GOOD}\n[[ab]]\n{GOOD}": "'x' is the name of two tables",
}


@pytest.mark.parametrize("table", WRONG)
def test_wrong_tables_are_named(table: str, tmp_path: Path) -> None:
    config = tmp_path / "rankd.toml"
    config.write_text(f"[[ab]]\n{table}\n")

    with pytest.raises(BadSettings) as refused:
        load({}, {}, config)

    assert WRONG[table] in str(refused.value)
