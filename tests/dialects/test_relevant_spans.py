"""`relevant_spans` on the wire: rankd's own dialect and Cohere's, on the fake engine."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.ranking import spans
from support.calling import calling
from support.client_prompts import WAYS

Json = dict[str, Any]

QUERY = "What is the capital of China?"
SENTENCES = [
    "The capital of China is Beijing.",
    "面包由面粉和水制成。",
    "China is a country.",
]
DOCUMENT = " ".join(SENTENCES)
OTHER = "狮子捕猎。鲸鱼唱歌。月亮绕着地球转。"
OWN, COHERE = "/v1/rerank", "/cohere/v2/rerank"
ENABLED = {"mode": "enabled"}
ALL = {"mode": "enabled", "threshold": 0}


def ask(client: TestClient, path: str = OWN, **fields: Any) -> Json:
    body = {"query": QUERY, "documents": [DOCUMENT, OTHER], **fields}
    reply = client.post(path, json=body)
    assert reply.status_code == 200, reply.text
    answer: Json = reply.json()
    return answer


def refusal(client: TestClient, path: str = OWN, status: int = 400, **fields: Any) -> Json:
    reply = client.post(path, json={"query": QUERY, "documents": [DOCUMENT], **fields})
    assert reply.status_code == status, reply.text
    answer: Json = reply.json()
    return answer


def found(answer: Json, index: int = 0) -> list[Json]:
    """The spans of one document."""
    [result] = [result for result in answer["results"] if result["index"] == index]
    spans: list[Json] = result.get("relevant_spans", [])
    return spans


def texts(spans: list[Json], document: str = DOCUMENT) -> list[str]:
    return [document[span["start"] : span["end"]] for span in spans]


def tokens(answer: Json) -> int:
    count: int = answer["meta"]["tokens"]["input_tokens"]
    return count


def computed_pairs(client: TestClient) -> float:
    [line] = re.findall(r"^rankd_computed_pairs_total (.+)$", client.get("/metrics").text, re.M)
    return float(line)


@pytest.mark.parametrize("path", [OWN, COHERE])
def test_spans_are_the_sentences_most_relevant_first(client: TestClient, path: str) -> None:
    alone = ask(client, documents=SENTENCES)["results"]

    spans = found(ask(client, path, relevant_spans=ALL))

    assert texts(spans) == [SENTENCES[result["index"]] for result in alone]
    assert [span["score"] for span in spans] == [result["relevance_score"] for result in alone]
    assert [set(span) for span in spans] == [{"start", "end", "score"}] * 3


@pytest.mark.parametrize(
    "short", [True, "true", {}, ENABLED, {"threshold": 0.1}, {"max_spans": 99, "threshold": None}]
)
def test_short_forms_mean_a_threshold_of_one_tenth_and_all_spans(
    client: TestClient, short: Any
) -> None:
    every = found(ask(client, relevant_spans=ALL))
    kept = [span for span in every if span["score"] >= 0.1]
    assert 0 < len(kept) < len(every)

    assert found(ask(client, relevant_spans=short)) == kept


@pytest.mark.parametrize(
    "off", [False, None, {"mode": "disabled"}, {"mode": "disabled", "threshold": 0}]
)
def test_disabled_changes_nothing_and_costs_nothing(client: TestClient, off: Any) -> None:
    plain, answer = ask(client), ask(client, relevant_spans=off)

    assert answer["results"] == plain["results"]
    assert answer["usage"] == plain["usage"]


@pytest.mark.parametrize("path", [OWN, COHERE])
def test_threshold_and_max_spans_choose_the_best(client: TestClient, path: str) -> None:
    every = found(ask(client, path, relevant_spans=ALL))
    score = every[1]["score"]

    assert found(ask(client, path, relevant_spans=ALL | {"max_spans": 1})) == every[:1]
    assert found(ask(client, path, relevant_spans=ALL | {"threshold": score})) == every[:2]


@pytest.mark.parametrize("path", [OWN, COHERE])
def test_results_without_a_span_have_no_field(client: TestClient, path: str) -> None:
    answer = ask(client, path, documents=[OTHER], relevant_spans=ENABLED)

    assert set(answer["results"][0]) <= {"index", "relevance_score", "document"}


def test_coheres_answer_has_coheres_fields_only(client: TestClient) -> None:
    answer = ask(client, COHERE, relevant_spans=ENABLED)

    assert set(answer) == {"id", "results", "meta"}
    assert set(answer["results"][0]) == {"index", "relevance_score", "relevant_spans"}
    assert "warnings" not in answer["meta"]


@pytest.mark.parametrize(
    ("path", "value", "param", "words"),
    [
        (OWN, "x", "relevant_spans", "must be true, false or an object, not a string"),
        (OWN, [], "relevant_spans", "must be true, false or an object, not an array"),
        (OWN, {"threshold": 1.5}, "relevant_spans.threshold", "1.5"),
        (OWN, {"threshold": -0.1}, "relevant_spans.threshold", "-0.1"),
        (OWN, {"threshold": True}, "relevant_spans.threshold", "a boolean"),
        (OWN, {"max_spans": 0}, "relevant_spans.max_spans", "0"),
        (OWN, {"mode": "on"}, "relevant_spans.mode", "'enabled' or 'disabled'"),
        (COHERE, {"threshold": 0.1}, "relevant_spans.mode", "missing"),
        (COHERE, True, "relevant_spans", "object"),
        (COHERE, {"mode": "enabled", "threshold": 2}, "relevant_spans.threshold", "2"),
    ],
)
def test_wrong_values_are_named(
    client: TestClient, path: str, value: Any, param: str, words: str
) -> None:
    answer = refusal(client, path, relevant_spans=value)

    assert param in answer["message"]
    assert words in answer["message"]


def test_unknown_fields_inside_are_reported(client: TestClient) -> None:
    answer = ask(client, relevant_spans={"min_score": 0.5})

    assert answer["meta"]["warnings"] == ["unknown field 'relevant_spans.min_score' was ignored"]


def test_only_results_get_spans_and_only_their_sentences_are_paid_for(client: TestClient) -> None:
    documents = [OTHER, DOCUMENT]
    plain = tokens(ask(client, documents=documents))
    sentences = tokens(ask(client, documents=SENTENCES))

    answer = ask(client, documents=documents, relevant_spans=True, top_n=1)

    assert [result["index"] for result in answer["results"]] == [1]
    assert found(answer, 1)
    assert answer["usage"]["prompt_tokens"] == tokens(answer) == plain + sentences
    assert answer["meta"]["billed_units"] == {"search_units": 1}


def test_documents_below_the_threshold_cost_no_sentences(client: TestClient) -> None:
    documents = [OTHER, DOCUMENT]
    best = ask(client, documents=documents)["results"][0]["relevance_score"]
    sentences = tokens(ask(client, documents=SENTENCES))

    answer = ask(client, documents=documents, relevant_spans=True, score_threshold=best)

    assert tokens(answer) == tokens(ask(client, documents=documents)) + sentences


def test_a_document_of_one_sentence_has_its_own_score_and_costs_nothing_more(
    client: TestClient,
) -> None:
    documents = [f"  {SENTENCES[0]}\n"]
    plain = ask(client, documents=documents)

    answer = ask(client, documents=documents, relevant_spans=ALL)

    assert found(answer) == [
        {"start": 2, "end": 34, "score": plain["results"][0]["relevance_score"]}
    ]
    assert tokens(answer) == tokens(plain)


def test_a_document_without_words_has_no_spans(client: TestClient) -> None:
    assert found(ask(client, documents=["", " \n "], relevant_spans=ALL)) == []


def test_sentences_are_cached_and_equal_ones_are_scored_once() -> None:
    with calling(Settings(engine="fake")) as client:
        before = computed_pairs(client)
        first = ask(client, documents=[DOCUMENT, f"{DOCUMENT} No."], relevant_spans=True)
        again = ask(client, documents=[DOCUMENT], relevant_spans=True)
        alone = ask(client, documents=SENTENCES)
        computed = computed_pairs(client) - before

    assert first["usage"]["cached_tokens"] == 0
    assert again["usage"]["cached_tokens"] == again["usage"]["prompt_tokens"]
    assert alone["meta"]["cached_documents"] == 3
    assert computed == 6  # Two documents, three sentences and "No."


def test_admission_counts_sentences_before_anything_is_scored() -> None:
    with calling(Settings(engine="fake", cache_mb=0)) as client:
        plain = tokens(ask(client, documents=[DOCUMENT]))
        whole = tokens(ask(client, documents=[DOCUMENT], relevant_spans=True))
    assert plain < whole

    with calling(Settings(engine="fake", cache_mb=0, max_request_tokens=whole - 1)) as client:
        ask(client, documents=[DOCUMENT])
        before = computed_pairs(client)
        answer = refusal(client, status=413, relevant_spans=True)
        after = computed_pairs(client)

    assert f"the limit is {whole - 1:,}" in answer["message"]
    assert before == after


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"max_tokens_per_doc": 8}, [SENTENCES[0]]),
        ({"max_tokens_per_doc": 12}, [SENTENCES[0], "面包"]),
        ({"max_tokens_per_doc": 5, "truncation_side": "left"}, [SENTENCES[2]]),
        ({"max_tokens_per_doc": 6, "truncation": "chunk"}, SENTENCES),
        ({"max_tokens_per_doc": 8, "max_chunks_per_doc": 1}, [SENTENCES[0]]),
    ],
)
def test_spans_are_only_in_what_the_model_read(
    client: TestClient, fields: Json, kept: list[str]
) -> None:
    answer = ask(client, documents=[DOCUMENT], relevant_spans=ALL, **fields)

    spans = sorted(found(answer), key=lambda span: span["start"])
    read = texts(spans)
    assert [part.rstrip(".") for part in read] == [part.rstrip(".") for part in kept]


def test_a_sentence_too_long_for_the_model_has_the_span_of_its_best_chunk() -> None:
    document = "Short. " + "bread flour " * 60 + "capital of China " * 3 + "flour bread " * 20
    with calling(Settings(engine="fake", max_tokens=200)) as client:
        answer = ask(
            client, documents=[document], relevant_spans={"max_spans": 1}, truncation="chunk"
        )
    [span] = found(answer)

    assert "capital of China" in document[span["start"] : span["end"]]
    assert span["end"] - span["start"] < len(document) - len("Short. ")


@pytest.mark.parametrize(
    ("document", "options"),
    [
        ({"text": DOCUMENT, "id": 7}, {}),
        ({"content": DOCUMENT}, {}),
        ({"title": "China", "body": DOCUMENT}, {}),
        ({"title": "China", "body": DOCUMENT}, {"rank_fields": ["body"]}),
    ],
)
def test_offsets_of_objects_are_in_the_text_that_was_scored(
    client: TestClient, document: Json, options: Json
) -> None:
    answer = ask(client, documents=[document], relevant_spans=ALL, **options)

    text = answer["results"][0]["document"]["text"]
    assert SENTENCES[1] in texts(found(answer), text)


def test_offsets_are_in_the_text_as_sent_if_it_holds_a_prompt(client: TestClient) -> None:
    body = WAYS["vLLM's and vllm-ascend's tutorials"].body(QUERY, [DOCUMENT])

    answer = ask(client, **body, relevant_spans=ALL)

    assert set(SENTENCES[:2]) <= set(texts(found(answer), body["documents"][0]))


def test_a_stream_has_the_spans_in_its_last_line(client: TestClient) -> None:
    body = {"query": QUERY, "documents": [DOCUMENT, OTHER], "relevant_spans": True}
    reply = client.post(OWN, json=body, headers={"accept": "application/x-ndjson"})
    *lines, last = map(json.loads, reply.text.splitlines())

    assert len(lines) == 2
    assert not any("relevant_spans" in line or "chunk" in line for line in lines)
    assert last["results"] == ask(client, relevant_spans=True)["results"]


def test_each_request_of_a_batch_has_its_spans(client: TestClient) -> None:
    one = {"query": QUERY, "documents": [DOCUMENT]}
    body = {"requests": [one, one | {"relevant_spans": True}]}
    plain, spanned = client.post("/v1/batch_rerank", json=body).json()["results"]

    assert found(plain["body"]) == []
    assert found(spanned["body"]) == found(ask(client, relevant_spans=True))


def test_return_details_and_spans_are_independent(client: TestClient) -> None:
    details = ask(client, return_details=True)["results"][0]
    both = ask(client, return_details=True, relevant_spans=True)["results"][0]

    assert {**details, "relevant_spans": both["relevant_spans"]} == both


def test_too_many_sentences_are_refused_with_the_limit(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spans, "MAX_SENTENCES", 3)

    answer = refusal(client, status=413, documents=[DOCUMENT, OTHER], relevant_spans=True)

    assert "have 6 sentences" in answer["message"]
    assert "limit with relevant_spans is 3" in answer["message"]
    assert found(ask(client, relevant_spans=True, top_n=1))
