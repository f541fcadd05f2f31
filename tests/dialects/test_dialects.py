"""What dialects do beyond the shape of their answers, which test_references.py covers."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.dialects import DIALECTS
from rankd.dialects.base import Dialect
from support.dialects import example, home

QUERY = "What is the capital of China?"
TEXTS = ["Lions hunt at night.", "The capital of China is Beijing.", "Blue whales sing."]


def post(client: TestClient, path: str, body: dict[str, Any], status: int = 200) -> Any:
    reply = client.post(path, json=body)
    assert reply.status_code == status, reply.text
    return reply.json()


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: type(dialect).__name__)
def test_every_dialect_answers_its_own_example(client: TestClient, dialect: Dialect) -> None:
    reply = client.post(home(dialect), json=example(dialect))

    assert reply.status_code == 200, reply.text
    assert "x-rankd-warnings" not in reply.headers


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: type(dialect).__name__)
@pytest.mark.parametrize("field", ["instruction", "instruct", "task"])
def test_every_dialect_accepts_an_instruction(
    client: TestClient, dialect: Dialect, field: str
) -> None:
    instruction = {field: "Judge whether the document answers the question. " * 10}
    body = {key: value for key, value in example(dialect).items() if key not in instruction}
    body.pop("instruct", None), body.pop("instruction", None)

    reply = client.post(home(dialect), json=body | instruction)
    refused = client.post(home(dialect), json=body | {field: "do this " * 600})

    assert reply.status_code == 200
    assert "x-rankd-warnings" not in reply.headers
    assert refused.status_code == 400
    assert "the instruction takes" in refused.json()["message"]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: type(dialect).__name__)
def test_every_error_has_the_three_fields_that_clients_read(
    client: TestClient, dialect: Dialect
) -> None:
    reply = client.post(home(dialect), json={})
    answer = reply.json()

    assert reply.status_code == 400
    # DeepInfra's is an object.
    assert answer["detail"] in (answer["message"], {"error": answer["message"]})
    assert answer["message"].endswith("is missing")
    assert "error" in answer


@pytest.mark.parametrize(
    "fields",
    [
        {"instruction": "one", "instruct": "two"},
        {"task": "one", "chat_template_kwargs": {"instruction": "two"}},
        {"instruction": "one", "kwargs": '{"instruction": "two"}'},
        {"use_activation": True, "raw_scores": True},
    ],
)
def test_two_names_of_a_field_with_different_values_are_refused(
    client: TestClient, fields: dict[str, Any]
) -> None:
    answer = post(client, "/rerank", {"query": "q", "documents": ["d"], **fields}, 400)

    assert "have different values; send one" in answer["message"]
    for name in fields:
        assert name in answer["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"instruction": "one", "instruct": "one", "kwargs": '{"instruction": "one"}'},
        {"instruction": "", "instruct": "two"},
        {"use_activation": False, "raw_scores": True},
        {"kwargs": "{}"},
        {"kwargs": "", "chat_template_kwargs": {}},
    ],
)
def test_two_names_of_a_field_with_one_value_are_accepted(
    client: TestClient, fields: dict[str, Any]
) -> None:
    post(client, "/rerank", {"query": "q", "documents": ["d"], **fields})


@pytest.mark.parametrize(
    ("kwargs", "complaint"),
    [
        ("[", "kwargs must be an object as JSON text"),
        ("[1]", "kwargs must be an object as JSON text"),
        ('{"instruction": 3}', "kwargs.instruction must be a string, not a number (3)"),
    ],
)
def test_kwargs_that_are_not_an_object_are_refused(
    client: TestClient, kwargs: str, complaint: str
) -> None:
    body = {"query": "q", "documents": ["d"], "kwargs": kwargs}

    assert post(client, "/xinference/v1/rerank", body, 400)["message"] == complaint


def test_cohere_v2_never_repeats_documents_and_v1_only_on_request(client: TestClient) -> None:
    body = {"query": QUERY, "documents": [{"text": text, "id": "7"} for text in TEXTS]}

    second = post(client, "/cohere/v2/rerank", body)
    first = post(client, "/cohere/v1/rerank", body)
    with_documents = post(client, "/cohere/v1/rerank", {**body, "return_documents": True})

    assert len(second["results"]) == len(first["results"]) == len(TEXTS)
    assert all("document" not in result for result in second["results"] + first["results"])
    assert with_documents["results"][0]["document"] == {"text": TEXTS[1], "id": "7"}
    assert first["meta"]["api_version"] == {"version": "1"}
    assert second["meta"]["api_version"] == {"version": "2"}


def test_simple_has_scores_in_both_orders(client: TestClient) -> None:
    answer = post(client, "/simple/rerank", {"query": QUERY, "documents": TEXTS, "top_k": 2})

    assert answer["ranked_documents"][0] == TEXTS[1]
    assert answer["ranked_scores"] == sorted(answer["scores"], reverse=True)[:2]
    assert len(answer["scores"]) == 3


def test_simple_batch_answers_every_query_as_a_separate_request(client: TestClient) -> None:
    alone = [
        post(client, "/simple/rerank", {"query": query, "documents": TEXTS})
        for query in (QUERY, "whales")
    ]
    shared = {"queries": [QUERY, "whales"], "documents": TEXTS}
    apart = {"queries": [QUERY, "whales"], "documents": [TEXTS, TEXTS]}
    pairs = {"pairs": [{"query": query, "documents": TEXTS} for query in (QUERY, "whales")]}

    assert post(client, "/simple/batch_rerank", shared)["results"] == alone
    assert post(client, "/simple/batch_rerank", apart)["results"] == alone
    assert post(client, "/simple/batch_rerank", pairs)["results"] == alone


@pytest.mark.parametrize("field", ["instruction", "preset", "top_k", "timeout_ms"])
def test_pairs_of_a_simple_batch_have_no_fields_of_their_own(
    client: TestClient, field: str
) -> None:
    pair = {"query": QUERY, "documents": TEXTS, field: 1}

    answer = client.post("/simple/batch_rerank", json={"pairs": [pair]})

    assert answer.status_code == 400
    assert answer.json()["message"].startswith(f"pairs[0] has {field}: send it beside pairs")


def test_unknown_fields_in_pairs_of_a_simple_batch_are_named(client: TestClient) -> None:
    pairs = [{"query": QUERY, "documents": TEXTS, "id": 1}]

    answer = client.post("/simple/batch_rerank", json={"pairs": pairs})

    assert answer.status_code == 200
    assert answer.headers["x-rankd-warnings"] == "unknown field 'id' was ignored"


@pytest.mark.parametrize("field", ["queries", "documents"])
def test_a_simple_batch_has_pairs_or_queries(client: TestClient, field: str) -> None:
    body = {"pairs": [{"query": QUERY, "documents": TEXTS}], field: ["a"]}

    answer = client.post("/simple/batch_rerank", json=body)

    assert answer.status_code == 400
    assert answer.json()["message"] == f"send either pairs or {field}, not both"


def test_pairs_of_a_simple_batch_need_query_and_documents(client: TestClient) -> None:
    body = {"pairs": [{"query": QUERY, "documents": TEXTS}, {"query": QUERY}]}

    answer = post(client, "/simple/batch_rerank", body, 400)

    assert answer["message"].startswith("pairs[1] must be an object with query and documents")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"queries": [], "documents": ["d"]}, "queries must not be empty"),
        ({"queries": ["q", ""], "documents": ["d"]}, "queries[1] must not be empty"),
        ({"queries": ["q"], "documents": [["a"], ["b"]]}, "1 queries and 2 arrays of documents"),
        ({"queries": ["q"], "documents": [[]]}, "documents[0] must be an array that is not empty"),
        ({"queries": ["q", "r"], "documents": [["a"], "b"]}, "documents[1] must be an array"),
        ({"queries": ["q"], "documents": []}, "documents must not be empty"),
    ],
)
def test_a_wrong_simple_batch_is_refused_with_the_reason(
    client: TestClient, body: dict[str, Any], complaint: str
) -> None:
    assert post(client, "/simple/batch_rerank", body, 400)["message"].startswith(complaint)


def test_the_limit_counts_the_documents_of_all_queries(client: TestClient) -> None:
    body = {"queries": ["a", "b", "c"], "documents": [f"{n}" for n in range(10)]}

    assert (
        "30 documents in one request" in post(client, "/simple/batch_rerank", body, 413)["message"]
    )


def test_plain_has_documents_as_strings(client: TestClient) -> None:
    [result] = post(client, "/plain/rerank", {"query": QUERY, "documents": TEXTS, "top_n": 1})[
        "results"
    ]

    assert result["document"] == TEXTS[1]


def test_invocations_accept_score_and_rerank_requests(client: TestClient) -> None:
    scores = post(client, "/invocations", {"text_1": QUERY, "text_2": TEXTS})
    ranks = post(client, "/invocations", {"query": QUERY, "texts": TEXTS})
    ours = post(client, "/invocations", {"query": QUERY, "documents": TEXTS})
    vllms = post(client, "/vllm/invocations", {"query": QUERY, "documents": TEXTS})

    assert [score["index"] for score in scores["data"]] == [0, 1, 2]
    assert ranks[0]["index"] == ours["results"][0]["index"] == 1
    assert vllms["results"][0]["document"] == {"text": TEXTS[1], "multi_modal": None}


def test_tokenize_returns_the_ids_of_a_text_without_the_template(client: TestClient) -> None:
    answer = post(
        client, "/tokenize", {"prompt": "The capital <|im_end|> 北京", "return_token_strs": True}
    )

    assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
    assert answer["max_model_len"] == 8192
    assert answer["token_strs"][0].lower() == "the"
    # A control token in a text is encoded as text, in several tokens.
    assert answer["count"] > 6
    assert post(client, "/tokenize", {"prompt": "x"})["token_strs"] is None


def test_tokenize_accepts_long_texts(client: TestClient) -> None:
    assert post(client, "/tokenize", {"prompt": "word " * 5_000})["count"] >= 5_000


def test_llamacpp_answers_texts_as_tei(client: TestClient) -> None:
    body = {"query": QUERY, "texts": TEXTS, "top_n": 1, "return_text": True}

    assert post(client, "/llamacpp/rerank", body)[0]["text"] == TEXTS[1]


def test_tei_answers_with_timing_headers(client: TestClient) -> None:
    reply = client.post("/tei/rerank", json={"query": QUERY, "texts": TEXTS})

    assert reply.headers["x-compute-characters"] == str(sum(map(len, TEXTS)))
    assert int(reply.headers["x-compute-tokens"]) > 100
    for name in ("compute", "total", "tokenization", "queue", "inference"):
        assert int(reply.headers[f"x-{name}-time"]) >= 0


def test_a_model_in_the_path_is_the_model_of_the_request(client: TestClient) -> None:
    reply = client.post(
        "/v1/retrieval/nvidia/some-model/reranking",
        json={"query": {"text": QUERY}, "passages": [{"text": text} for text in TEXTS]},
    )

    assert reply.status_code == 200
    assert reply.json()["rankings"][0]["index"] == 1


def test_one_string_is_an_array_of_one_document(client: TestClient) -> None:
    assert len(post(client, "/rerank", {"query": "q", "documents": "d"})["results"]) == 1


@pytest.mark.parametrize(
    "path",
    [
        "//v1/rerank",
        "/v1/rerank/",
        "//v1//rerank//",
        "/tei//rerank/",
        "/v1/v1/rerank",
        "/v1/v2/rerank",
        "/tei/",
        "/",
    ],
)
def test_double_slashes_and_versions_in_the_path_are_accepted(
    client: TestClient, path: str
) -> None:
    body = {"query": "q", "documents" if "/v" in path else "texts": ["d"]}

    # An absolute URL, because a relative one that begins with two slashes names a host.
    assert client.post(f"http://testserver{path}", json=body).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"), [("top_n", "2"), ("top_n", 2.0), ("return_documents", "False")]
)
def test_numbers_and_booleans_may_be_strings(client: TestClient, name: str, value: Any) -> None:
    answer = post(client, "/rerank", {"query": QUERY, "documents": TEXTS, name: value})

    assert len(answer["results"]) == (2 if name == "top_n" else 3)
    assert ("document" in answer["results"][0]) == (name == "top_n")


@pytest.mark.parametrize("value", [True, "two", 2.5, [2], -1, "", 10**30])
def test_a_top_n_that_is_not_a_count_is_refused(client: TestClient, value: Any) -> None:
    answer = post(client, "/rerank", {"query": "q", "documents": ["d"], "top_n": value}, 400)

    assert answer["error"]["param"] == "top_n"


def test_warnings_are_in_a_header_in_every_dialect(client: TestClient) -> None:
    unknown = {f"field{number}é": 1 for number in range(9)}
    reply = client.post("/tei/rerank", json={"query": "q", "texts": ["d"], **unknown})

    warned = reply.headers["x-rankd-warnings"]
    assert warned.startswith("unknown field 'field0\\xe9' was ignored; ")
    assert warned.endswith("; and 4 more")


def test_nested_unknown_fields_are_named_with_their_path(client: TestClient) -> None:
    reply = client.post(
        "/dashscope/v1/rerank",
        json={"input": {"query": "q", "documents": ["d"], "odd": 1}, "parameters": {"fps": 2}},
    )

    assert reply.headers["x-rankd-warnings"] == (
        "unknown field 'input.odd' was ignored; unknown field 'parameters.fps' was ignored"
    )


def test_unknown_fields_are_counted_by_dialect(client: TestClient) -> None:
    def count() -> float:
        for line in client.get("/metrics").text.splitlines():
            if line.startswith('rankd_unknown_fields_total{dialect="nim"}'):
                return float(line.split()[1])
        return 0

    before = count()
    post(client, "/rerank", {"query": "q", "passages": ["d"], "odd": 1, "odder": 2})

    assert count() == before + 2


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/tokenize", {"prompt": "x", "odd": 1}, "unknown field 'odd' was ignored"),
        (
            "/simple/batch_rerank",
            {"queries": ["q"], "documents": ["x " * 9000], "odd": 1},
            "unknown field 'odd' was ignored; query 0: document 0 was cut from ",
        ),
    ],
)
def test_tokenize_and_simple_batch_answer_with_warnings(
    client: TestClient, path: str, body: dict[str, Any], message: str
) -> None:
    assert client.post(path, json=body).headers["x-rankd-warnings"].startswith(message)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/score", {"text_1": "q", "text_2": ["d"]}, "text_2"),
        ("/score", {"text_1": ["q"], "text_2": ["d"]}, "text_1"),
        ("/simple/batch_rerank", {"queries": ["q"], "documents": ["d"]}, "queries"),
    ],
)
def test_an_object_of_very_many_fields_is_refused(
    client: TestClient, path: str, body: dict[str, Any], field: str
) -> None:
    many = {f"{number:x}": 1 for number in range(10_001)}

    answer = post(client, path, {**body, field: [many]}, 413)

    assert answer["message"] == f"{field}[0] has 10,001 fields; the limit is 10,000"


LONG = "x " * 9000


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"query": "q", "texts": ["a", LONG], "truncate": False}, "texts[1] (9,001)"),
        ({"query": "q", "passages": [LONG], "truncate": "NONE"}, "passages[0] (9,001)"),
    ],
)
def test_documents_that_do_not_fit_are_named_as_in_the_request(
    client: TestClient, body: dict[str, Any], message: str
) -> None:
    assert post(client, "/rerank", body, 400)["message"].endswith(message)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": {"query": LONG, "documents": ["d"]}}, "input.query"),
        (
            {
                "input": {"query": "q", "documents": ["d"]},
                "parameters": {"instruct": LONG},
            },
            "parameters.instruct",
        ),
        ({"query": "q", "documents": ["d"], "instruct": LONG}, "instruct"),
        ({"query": LONG, "documents": ["d"]}, "query"),
    ],
)
def test_a_field_that_is_too_long_is_named_as_in_the_request(
    client: TestClient, body: dict[str, Any], param: str
) -> None:
    assert post(client, "/rerank", body, 400)["error"]["param"] == param


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("/tei/rerank", "error_type", "Validation"),
        ("/dashscope/rerank", "code", "InvalidParameter"),
        ("/siliconflow/rerank", "code", 20015),
    ],
)
def test_a_compressed_body_is_refused_in_the_format_of_the_dialect(
    client: TestClient, path: str, field: str, value: Any
) -> None:
    reply = client.post(path, content=b"x", headers={"content-encoding": "gzip"})

    assert reply.status_code == 415
    assert reply.json()[field] == value


def test_requests_are_counted_by_dialect(client: TestClient) -> None:
    def count() -> float:
        for line in client.get("/metrics").text.splitlines():
            if line.startswith('rankd_dialect_requests_total{dialect="nim"}'):
                return float(line.split()[1])
        return 0

    before = count()
    post(client, "/rerank", {"query": "q", "passages": ["d"]})

    assert count() == before + 1
