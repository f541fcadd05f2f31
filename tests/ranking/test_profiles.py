"""By what a request is judged, through the front door, in every dialect."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.config.sources import load
from rankd.dialects import DIALECTS
from rankd.dialects.base import Dialect
from rankd.errors import BadSettings, InvalidRequest
from rankd.ranking.profiles import Profiles
from rankd.types import sigmoid
from support.calling import calling
from support.dialects import home

Json = dict[str, Any]

QUERY = "What is the capital of China?"
TEXTS = ["Lions hunt at night.", "The capital of China is Beijing.", "Blue whales sing."]
BODY: Json = {"query": QUERY, "documents": TEXTS}


ANIMALS = ["Zebras graze", "Walruses swim", "Badgers dig", "Ocelots climb"]


def example(dialect: Dialect) -> Json:
    """A dialect's own example, but about animals."""
    body: Json = _of_animals(dialect.Request.model_json_schema()["example"])
    left = ("instruct", "instruction", "model", "top_n", "top_k", "parameters", "rank_fields")
    return {name: body[name] for name in body if name not in left}


def _of_animals(value: Any) -> Any:
    match value:
        case [str(), *_]:
            return ANIMALS
        case [dict(), *_]:
            return [{"text": animal} for animal in ANIMALS]
        case dict():
            return {name: _of_animals(one) for name, one in value.items()}
    return value


# Every way to ask for scores: each dialect's own, and those that are no dialect.
ASKED: list[tuple[str, Json]] = [
    (home(dialect, "builtin"), example(dialect)) for dialect in DIALECTS
]
ASKED += [
    ("/v1/rerank", {"query": QUERY, "documents": ANIMALS}),
    ("/v1/score", {"queries": QUERY, "documents": ANIMALS}),
    ("/invocations", {"text_1": QUERY, "text_2": ANIMALS}),
    ("/simple/batch_rerank", {"queries": [QUERY], "documents": [ANIMALS]}),
]
every_way = pytest.mark.parametrize(
    ("path", "body"), ASKED, ids=[f"{place}{path}" for place, (path, _) in enumerate(ASKED)]
)

# Those whose answers have a place for every document.
WHOLE = ("/weaviate/", "/v1/score", "/invocations")


# The fake engine counts the words that a document shares with instruction and query: each of
# these makes one animal more relevant.
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


@contextmanager
def opened(**settings: Any) -> Iterator[TestClient]:
    with calling(Settings(**{"engine": "fake", "cache_mb": 0, **settings})) as client:
        yield client


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text("acme = key-of-acme\nother = key-of-other\n")
    with opened(**SETTINGS, api_keys_file=keys, key_presets={"acme": "every"}) as app:
        yield app


def ask(client: TestClient, path: str, body: Json, key: str = "other", **more: Any) -> Any:
    reply = client.post(path, json=body | more, headers={"api-key": f"key-of-{key}"})
    assert reply.status_code == 200, reply.text
    return reply


def counted(page: str, metric: str) -> dict[str, float]:
    """What a metric counts, by the value of its only label, or by its name."""
    lines = [line for line in page.splitlines() if line.startswith(metric)]
    return {[*line.split('"'), metric][1]: float(line.split()[-1]) for line in lines}


def numbers(answer: Any, *names: str) -> list[float]:
    """Every score in an answer of any dialect, in its order."""
    names = names or ("score", "relevance_score", "logit", "scores")
    match answer:
        case list():
            return [number for one in answer for number in numbers(one, *names)]
        case dict():
            found: list[float] = []
            for name, value in answer.items():
                if name in names and isinstance(value, float | int):
                    found.append(value)
                elif name in names and value and isinstance(value[0], float):
                    found += value
                else:
                    found += numbers(value, *names)
            return found
    return []


@every_way
def test_text_beats_preset_beats_alias_beats_key_beats_default(
    client: TestClient, path: str, body: Json
) -> None:
    texts = {"default": Settings().instruction, **PRESETS, "custom": CUSTOM}
    told = {name: ask(client, path, body, instruction=texts[name]).json() for name in texts}
    want = {name: numbers(answer) for name, answer in told.items()}
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

    assert len({tuple(scores) for scores in want.values()}) == len(want)
    for name, key, more in steps:
        assert numbers(ask(client, path, body, key, **more).json()) == want[name], (name, more)


@pytest.mark.parametrize(
    "path", ["/_inference/rerank/house/last", "/v1/retrieval/house/last/reranking"]
)
def test_a_model_in_the_path_may_be_an_alias(client: TestClient, path: str) -> None:
    body = {"query": QUERY, "input" if "_inference" in path else "passages": ANIMALS}

    by_path = ask(client, path, body)
    by_text = ask(client, path.replace("house/last", "builtin"), body, preset="last")

    assert numbers(by_path.json()) == numbers(by_text.json())


def test_dashscopes_sdk_puts_it_among_the_parameters(client: TestClient) -> None:
    path, body = "/dashscope/rerank", {"input": {"query": QUERY, "documents": ANIMALS}}
    whole = numbers(ask(client, path, body, preset="first").json())

    inside: Json = {"preset": "first", "score_threshold": whole[0]}
    reply = ask(client, path, body, parameters=inside)
    both = client.post(
        path,
        json=body | {"parameters": inside, "preset": "last"},
        headers={"api-key": "key-of-other"},
    )

    assert numbers(reply.json()) == whole[:1]
    assert "x-rankd-warnings" not in reply.headers
    assert both.status_code == 400
    assert both.json()["message"].startswith("preset and parameters.preset say different things")


@every_way
def test_an_unknown_preset_is_a_400_that_lists_the_known(
    client: TestClient, path: str, body: Json
) -> None:
    for more in ({}, {"instruction": CUSTOM}):
        reply = client.post(
            path, json=body | {"preset": "frist"} | more, headers={"api-key": "key-of-acme"}
        )

        assert reply.status_code == 400
        said = "preset 'frist' is not known; did you mean first?; there are default, first, last"
        assert reply.json()["message"].startswith(said)


def test_a_server_without_presets_says_so() -> None:
    with pytest.raises(InvalidRequest, match="'code' is not known; this server has only 'default'"):
        Profiles(Settings()).choose(preset="code")


def test_the_answer_names_the_preset_that_the_server_chose(client: TestClient) -> None:
    def preset(key: str, **more: Any) -> Any:
        return ask(client, "/v1/rerank", BODY, key, **more).json()["meta"].get("preset")

    assert preset("acme") == "every"
    assert preset("acme", model="house/last") == "last"
    assert preset("acme", preset="first") == "first"
    assert preset("other") is None
    assert preset("other", instruction=CUSTOM) is None
    assert preset("other", instruction=PRESETS["first"]) == "first"


@every_way
def test_every_ranking_says_by_which_instruction_it_was_made(
    client: TestClient, path: str, body: Json
) -> None:
    def said(key: str, **more: Any) -> str | None:
        header: str | None = ask(client, path, body, key, **more).headers.get("x-rankd-instruction")
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

    assert said("other") is said("other", instruction=Settings().instruction) is None
    for name, key, more in steps:
        assert said(key, **more) == f'preset="{name}", digest="{digests[name]}"'


def test_the_name_of_a_preset_as_an_instruction_is_remarked_upon(client: TestClient) -> None:
    reply = ask(client, "/v1/rerank", BODY, task="first")

    assert reply.json()["meta"]["warnings"] == [
        "the instruction 'first' was read as a text; the preset of that name is \"preset\": 'first'"
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
        ask(client, "/v1/rerank", BODY, key, **more)
    after = counts()

    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert {name: more for name, more in grown.items() if more} == {
        "default": 1,
        "every": 1,
        "first": 1,
        "custom": 2,
    }


def test_every_name_of_the_model_is_listed_and_understood(client: TestClient) -> None:
    listed = client.get("/v1/models").json()["data"]
    single = client.get("/v1/models/house/last")
    reply = ask(client, "/v1/rerank", BODY, model="house/last").json()
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


# Thresholds.


def kept(path: str, answer: Any) -> list[float]:
    """The scores in the part of an answer that a threshold makes shorter."""
    return numbers(answer, "ranked_scores") if "/simple" in path else numbers(answer)


@every_way
def test_documents_below_the_threshold_of_the_request_are_left_out(
    client: TestClient, path: str, body: Json
) -> None:
    whole = ask(client, path, body, preset="last")
    scores = sorted(kept(path, whole.json()), reverse=True)
    assert scores[0] > scores[-1]

    reply = ask(client, path, body, preset="last", score_threshold=scores[0])

    if path.startswith(WHOLE):
        assert kept(path, reply.json()) == kept(path, whole.json())
        assert reply.headers["x-rankd-warnings"].startswith("score_threshold has no effect here")
        assert "x-rankd-below-threshold" not in reply.headers
        return
    best = [score for score in scores if score == scores[0]]
    assert kept(path, reply.json()) == best
    assert reply.headers["x-rankd-below-threshold"] == str(len(scores) - len(best))
    assert "x-rankd-warnings" not in reply.headers
    assert "x-rankd-below-threshold" not in whole.headers
    if "/simple" in path:
        assert numbers(reply.json(), "scores") == numbers(whole.json(), "scores")


@pytest.fixture(scope="module")
def strict() -> Iterator[TestClient]:
    """A server with thresholds of its own; the words of `last` are those of the last text."""
    # Beijing has 0.90 by the server's own instruction; the others are below 0.1.
    with opened(
        instructions={"lions": "Lions hunt at night.", "odd": "Lions hunt."},
        calibration={
            "default": {"threshold": 0.5},
            "lions": {"threshold": 0.9, "platt": {"slope": 0.5, "intercept": -1.0}},
        },
        aliases={
            "loose": {"score_threshold": 0.0},
            "firm": {"preset": "odd", "score_threshold": 0.9},
            "mixed": {"preset": "lions"},
        },
    ) as app:
        yield app


def answer(client: TestClient, path: str = "/v1/rerank", **more: Any) -> Json:
    reply = client.post(path, json=BODY | more)
    assert reply.status_code == 200, reply.text
    found: Json = reply.json()
    return found


@pytest.mark.parametrize(
    ("more", "threshold"),
    [
        ({}, 0.5),
        ({"preset": "lions"}, 0.9),
        ({"model": "mixed"}, 0.9),
        ({"instruction": "Lions hunt at night."}, 0.9),
        ({"instruction": Settings().instruction}, 0.5),
        ({"instruction": "Another."}, None),
        ({"preset": "odd"}, None),
        ({"model": "firm"}, 0.9),
        ({"model": "loose"}, 0.0),
        ({"model": "loose", "preset": "lions"}, 0.0),
        ({"score_threshold": 0.3}, 0.3),
        ({"model": "firm", "score_threshold": 0.3}, 0.3),
        ({"preset": "lions", "score_threshold": 0}, 0.0),
    ],
)
def test_the_threshold_is_the_requests_the_aliass_or_that_of_the_instruction(
    strict: TestClient, more: Json, threshold: float | None
) -> None:
    said = answer(strict, **more)
    whole = answer(strict, **more | {"score_threshold": 0})
    every = numbers(whole["results"])

    assert len(every) == 3
    assert said["meta"].get("score_threshold") == threshold
    wanted = [score for score in every if threshold is None or score >= threshold]
    assert numbers(said["results"]) == wanted
    assert said["meta"].get("below_threshold") == (
        None if threshold is None else len(every) - len(wanted)
    )
    assert "warnings" not in whole["meta"]


def test_what_the_configuration_leaves_out_is_said_in_every_dialect(strict: TestClient) -> None:
    own = answer(strict)
    tei = strict.post("/tei/rerank", json={"query": QUERY, "texts": TEXTS})

    told = (
        "2 of 3 documents scored below 0.5, the threshold configured here, and are left out; "
        "send a score_threshold of your own to see them"
    )
    assert own["meta"]["warnings"] == [told]
    assert tei.headers["x-rankd-warnings"] == told
    assert tei.headers["x-rankd-below-threshold"] == "2"
    assert len(tei.json()) == 1


def test_answers_with_a_place_for_every_document_keep_them_all(strict: TestClient) -> None:
    body = {"text_1": QUERY, "text_2": TEXTS}

    assert len(strict.post("/v1/score", json=body).json()["data"]) == 3
    assert len(strict.post("/weaviate/rerank", json=BODY).json()["scores"]) == 3
    for path, asked in (("/v1/score", body), ("/weaviate/rerank", BODY)):
        assert strict.post(path, json=asked | {"score_threshold": 5}).status_code == 200


def test_a_batch_leaves_out_for_each_query(strict: TestClient) -> None:
    body = {"queries": [QUERY, "Lions hunt at night"], "documents": TEXTS, "score_threshold": 0.5}

    reply = strict.post("/simple/batch_rerank", json=body)

    first, second = reply.json()["results"]
    assert first["ranked_documents"] == [TEXTS[1]]
    assert second["ranked_documents"] == [TEXTS[0]]
    assert len(first["scores"]) == len(second["scores"]) == 3
    assert reply.headers["x-rankd-below-threshold"] == "4"


def test_what_is_left_out_is_counted(strict: TestClient) -> None:
    def count() -> float:
        name = "rankd_below_threshold_documents_total"
        return counted(strict.get("/metrics").text, f"{name} ")[f"{name} "]

    before = count()
    answer(strict)
    answer(strict, score_threshold=0)
    strict.post("/simple/batch_rerank", json={"queries": [QUERY], "documents": TEXTS})

    assert count() == before + 4


def test_top_n_counts_what_a_threshold_lets_through(strict: TestClient) -> None:
    one = answer(strict, score_threshold=0, top_n=2)
    two = answer(strict, score_threshold=0.5, top_n=2)

    assert len(one["results"]) == 2
    assert len(two["results"]) == 1
    assert two["meta"]["below_threshold"] == 2


def test_a_threshold_is_on_the_scale_of_the_answer(strict: TestClient) -> None:
    logits = numbers(answer(strict, score_threshold=-100, raw_scores=True)["results"])

    said = answer(strict, score_threshold=logits[1], raw_scores=True)

    assert numbers(said["results"]) == logits[:2]
    assert said["meta"]["score_threshold"] == logits[1]


def test_a_configured_threshold_is_of_the_score_though_the_answer_shows_logits(
    strict: TestClient,
) -> None:
    # One document has a score below, and a logit above 0.9.
    for more, threshold in (({"preset": "lions"}, 0.9), ({"model": "firm"}, 0.9), ({}, 0.5)):
        scores = answer(strict, **more)["results"]
        said = answer(strict, raw_scores=True, **more)

        assert [one["index"] for one in said["results"]] == [one["index"] for one in scores]
        assert said["meta"]["score_threshold"] == threshold


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.5, "score_threshold must be between 0 and 1, as scores are, not 1.5"),
        (-0.1, "score_threshold must be between 0 and 1, as scores are, not -0.1"),
        ("much", 'score_threshold must be a number, not a string ("much")'),
        (True, "score_threshold must be a number, not a boolean (true)"),
        ("inf", 'score_threshold must be a number, not a string ("inf")'),
    ],
)
def test_a_threshold_that_no_score_can_have_is_a_400(
    strict: TestClient, value: Any, said: str
) -> None:
    def scored() -> float:
        name = "rankd_documents_total"
        return counted(strict.get("/metrics").text, f"{name} ")[f"{name} "]

    before = scored()
    reply = strict.post("/v1/rerank", json=BODY | {"score_threshold": value})

    assert scored() == before
    assert reply.status_code == 400
    assert reply.json()["error"]["message"] == said
    assert reply.json()["error"]["param"] == "score_threshold"


# Calibration.


def test_a_probability_stands_beside_the_score_for_who_asks(strict: TestClient) -> None:
    more: Json = {"preset": "lions", "score_threshold": 0}
    plain = answer(strict, **more)
    logits = numbers(answer(strict, **more | {"score_threshold": -100}, raw_scores=True)["results"])

    said = answer(strict, **more, return_details=True)

    assert numbers(said["results"]) == numbers(plain["results"])
    assert numbers(said["results"], "normalized_score") == pytest.approx(
        [sigmoid(0.5 * logit - 1) for logit in logits], abs=1e-6
    )
    assert not numbers(plain["results"], "normalized_score")


def test_without_a_calibration_there_is_no_probability(strict: TestClient) -> None:
    for more in ({}, {"preset": "odd"}, {"instruction": "Another."}):
        assert not numbers(answer(strict, return_details=True, **more), "normalized_score")


# What an alias says of documents that do not fit.

LONG = " ".join(f"word{number}" for number in range(60))


FITTING: dict[str, Json] = {
    "refusing": {"truncation": "refuse", "max_tokens_per_doc": 20},
    "left": {"truncation_side": "left", "max_tokens_per_doc": 20},
    "chunked": {"truncation": "chunk", "max_tokens_per_doc": 20, "max_chunks_per_doc": 3},
    "overlapping": {"truncation": "chunk", "max_tokens_per_doc": 20, "overlap_tokens": 7},
}


@pytest.fixture(scope="module")
def fitting() -> Iterator[TestClient]:
    with opened(aliases=FITTING) as app:
        yield app


def fit(client: TestClient, path: str, body: Json, **more: Any) -> Any:
    reply = client.post(path, json=body | more)
    return reply.status_code, reply.headers.get("x-rankd-warnings"), numbers(reply.json())


OWN: Json = {"query": "word59", "documents": [LONG]}


def test_an_alias_says_what_becomes_of_long_documents(fitting: TestClient) -> None:
    status, _, _ = fit(fitting, "/v1/rerank", OWN, model="refusing")
    _, cut, right = fit(fitting, "/v1/rerank", OWN, max_tokens_per_doc=20)
    _, left_cut, left = fit(fitting, "/v1/rerank", OWN, model="left")
    _, chunk_cut, chunked = fit(fitting, "/v1/rerank", OWN, model="chunked")
    told = fit(fitting, "/v1/rerank", OWN, max_tokens_per_doc=20, max_chunks_per_doc=3)

    assert status == 400
    assert cut.endswith("to 20 tokens")
    assert left_cut.endswith("to 20 tokens")
    assert left > right  # The word that is asked for stands at the end.
    assert chunk_cut.endswith("to 60 tokens")
    assert (200, chunk_cut, chunked) == told


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", {"max_chunks_per_doc": 1}),
        ("/v1/score", {"max_tokens_per_doc": 1000}),
        ("/tei/rerank", {"truncate": True}),
        ("/voyage/v1/rerank", {"truncation": True}),
        ("/nim/v1/ranking", {"truncate": "END"}),
        ("/jina/v1/rerank", {"truncation": True}),
        ("/pinecone/rerank", {"parameters": {"truncate": "END"}}),
        ("/cohere/v1/rerank", {"max_chunks_per_doc": 2}),
    ],
)
def test_what_a_request_says_itself_beats_its_alias(
    fitting: TestClient, path: str, body: Json
) -> None:
    names = {"/tei/rerank": "texts", "/nim/v1/ranking": "passages"}
    query = "text_1" if "score" in path else "query"
    texts = "text_2" if "score" in path else names.get(path, "documents")
    asked = {query: "word59", texts: [LONG], "model": "refusing"}

    assert fit(fitting, path, asked)[0] == 400
    assert fit(fitting, path, asked, **body)[0] == 200


# What a dialect's own example says of long documents.
SAID = (
    *("max_tokens_per_doc", "max_chunks_per_doc", "overlap_tokens", "truncate", "truncation"),
    *("truncation_direction", "raw_scores"),
)
SILENT = [(path, {name: body[name] for name in body if name not in SAID}) for path, body in ASKED]


def of_one_long(body: Json) -> Json:
    """A body about animals, but with one query, and one document that does not fit."""
    return {name: _of_one_long(name, value) for name, value in body.items()}


def _of_one_long(name: str, value: Any) -> Any:
    match name, value:
        case "query", {"text": _}:
            return {"text": "word59"}
        case "query" | "queries" | "text_1", _:
            return ["word59"] if isinstance(value, list) else "word59"
        case "input", dict():
            return of_one_long(value) if "query" in value else value
        case _, [[*_]]:
            return [[LONG]]
        case _, [str(), *_]:
            return [LONG]
        case _, [dict(), *_]:
            return [{"text": LONG}]
    return value


silent = pytest.mark.parametrize(
    ("path", "body"), SILENT, ids=[f"{place}{path}" for place, (path, _) in enumerate(SILENT)]
)


@silent
@pytest.mark.parametrize("alias", ["refusing", "left", "chunked", "overlapping"])
def test_what_an_alias_says_holds_in_every_dialect_that_says_nothing(
    fitting: TestClient, path: str, body: Json, alias: str
) -> None:
    reply = fitting.post(path, json=of_one_long(body) | {"model": alias})
    told = fitting.post("/v1/rerank", json=OWN | FITTING[alias])

    assert reply.status_code == told.status_code == (400 if alias == "refusing" else 200)
    assert reply.headers.get("x-rankd-usage") == told.headers.get("x-rankd-usage")
    warnings = reply.headers.get("x-rankd-warnings", "").removeprefix("query 0: ")
    assert warnings == told.headers.get("x-rankd-warnings", "")


def test_a_field_that_a_dialect_does_not_have_says_nothing(fitting: TestClient) -> None:
    for more in ({"truncation": "cut"}, {"max_tokens_per_doc": 900}, {"max_doc_length": 900}):
        status, _, _ = fit(fitting, "/infinity/v1/rerank", OWN, model="refusing", **more)
        assert status == 400


# What a server does not start with.


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"instructions": {"long": "do this " * 300}},
            r"instructions\.long takes \d+ tokens; --max-instruction-tokens is 512",
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
def test_a_configuration_that_does_not_fit_the_model_ends_the_start(
    settings: Json, said: str
) -> None:
    with pytest.raises(BadSettings, match=said), opened(**settings):
        pass


def test_a_preset_for_a_key_that_nobody_has_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("acme = key-of-acme\n")

    with opened(api_keys_file=keys, key_presets={"acne": "default"}):
        pass

    assert "key_presets names 'acne', which no key has; did you mean acme?" in caplog.text


def test_a_key_where_its_name_belongs_ends_the_start_and_is_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings: Json = {"api_keys": ["key-of-acme"], "key_presets": {"key-of-acme": "default"}}

    with pytest.raises(BadSettings, match="key_presets contains a key") as refusal, opened(**settings):
        pass

    assert "key-of-acme" not in str(refusal.value) + caplog.text


def test_the_instructions_that_ship_are_short_enough_and_understood() -> None:
    settings = load({"engine": "fake"}, {}, Path("configs/instructions-qwen3.toml"))

    with opened(instructions=settings.instructions) as client:
        for name in settings.instructions:
            assert answer(client, preset=name)["meta"]["preset"] == name
    assert Settings().instruction in settings.instructions.values()
