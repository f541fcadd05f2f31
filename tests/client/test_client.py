"""The Python clients against a running rankd."""

from __future__ import annotations

import asyncio
import math
import pickle
import subprocess
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from rankd.client import (
    AsyncClient,
    BadRequest,
    Client,
    Overloaded,
    RerankRequest,
    TimedOut,
    Unauthorized,
)
from rankd.client.payloads import rerank_response
from support.scripted_server import CallClient, rerank
from support.servers import serving

QUERY = "What is the capital of China?"
DOCUMENTS = [
    "Gravity is a force that attracts two bodies towards each other.",
    "What is the capital of China? Beijing is the capital of China.",
]


def test_the_best_document_comes_first_with_its_text(call: CallClient, url: str) -> None:
    answer = call(url, lambda client: client.rerank(QUERY, DOCUMENTS))

    assert [result.index for result in answer.results] == [1, 0]
    assert answer.results[0].document == DOCUMENTS[1]
    assert 1 >= answer.results[0].relevance_score > answer.results[1].relevance_score >= 0
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    assert answer.id
    assert answer.model == "builtin"
    assert answer.warnings == ()


def test_documents_may_come_from_a_generator_and_as_mappings(call: CallClient, url: str) -> None:
    mappings = ({"text": text, "added": datetime.now(UTC)} for text in DOCUMENTS)

    answer = call(url, lambda client: client.rerank(QUERY, mappings))

    assert answer.results[0].document == DOCUMENTS[1]


def test_options_reach_the_server(call: CallClient, url: str) -> None:
    answer = call(
        url,
        lambda client: client.rerank(
            QUERY,
            [*DOCUMENTS, "one two three four five six seven eight"],
            top_n=2,
            return_documents=False,
            max_tokens_per_doc=4,
            raw_scores=True,
            instruction="Judge.",
            preset="default",
            priority=3,
            timeout_ms=60_000,
            partial=True,
            return_details=True,
            user="me",
            cache=False,
            timeout=30,
        ),
    )

    assert len(answer.results) == 2
    assert answer.results[0].document is None
    assert answer.results[1].relevance_score < 0  # A logit.
    assert any("was cut" in warning for warning in answer.warnings)
    assert not any("unknown field" in warning for warning in answer.warnings)
    assert answer.not_scored == ()


def test_without_cache_every_score_is_computed(call: CallClient, url: str) -> None:
    def cached() -> float:
        metrics = httpx.get(f"{url}/metrics").text
        return float(metrics.split("\nrankd_cached_documents_total ")[1].split("\n")[0])

    before = cached()
    call(url, lambda client: client.rerank(QUERY, DOCUMENTS))
    call(url, lambda client: client.rerank(QUERY, DOCUMENTS))
    with_cache = cached()
    call(url, lambda client: client.rerank(QUERY, DOCUMENTS, cache=False))
    call(url, lambda client: client.score(QUERY, DOCUMENTS, cache=False))

    assert with_cache >= before + len(DOCUMENTS)
    assert cached() == with_cache


def test_usage_contains_the_cached_tokens(call: CallClient, url: str) -> None:
    call(url, lambda client: client.rerank(QUERY, DOCUMENTS))
    again = call(url, lambda client: client.rerank(QUERY, DOCUMENTS)).usage
    computed = call(url, lambda client: client.rerank(QUERY, DOCUMENTS, cache=False)).usage

    assert again.cached_tokens == again.prompt_tokens > 0
    assert computed.cached_tokens == 0


def test_documents_below_a_threshold_are_left_out_and_counted(call: CallClient, url: str) -> None:
    whole = call(url, lambda client: client.rerank(QUERY, DOCUMENTS))
    best = whole.results[0].relevance_score

    answer = call(url, lambda client: client.rerank(QUERY, DOCUMENTS, score_threshold=best))

    assert answer.results == whole.results[:1]
    assert (whole.below_threshold, answer.below_threshold) == (0, len(DOCUMENTS) - 1)


def test_an_unknown_preset_is_a_bad_request(call: CallClient, url: str) -> None:
    with pytest.raises(BadRequest, match="preset 'code' is not known"):
        call(url, lambda client: client.rerank(QUERY, DOCUMENTS, preset="code"))
    with pytest.raises(BadRequest, match="preset 'code' is not known"):
        call(url, lambda client: client.score(QUERY, DOCUMENTS, preset="code"))


def test_a_normalized_score_is_read_if_present() -> None:
    result = {"index": 0, "relevance_score": 0.5}
    answer = rerank_response(
        {
            **{"id": "1", "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}},
            "results": [result | {"normalized_score": 0.25}, result],
        }
    )

    assert [result.normalized_score for result in answer.results] == [0.25, None]


def test_a_partial_response_lists_the_documents_it_lacks() -> None:
    answer = rerank_response(
        {
            "id": "1",
            "model": "m",
            "results": [{"index": 1, "relevance_score": 0.5}],
            "usage": {"prompt_tokens": 9, "total_tokens": 9},
            "meta": {
                "not_scored": [0, 2],
                "warnings": ["2 of 3 documents were not scored in time"],
            },
        }
    )

    assert answer.not_scored == (0, 2)


def test_fields_of_mappings_are_read(call: CallClient, url: str) -> None:
    documents = [{"title": text, "body": "Nothing."} for text in DOCUMENTS]

    every = call(url, lambda client: client.rerank(QUERY, documents))
    titles = call(url, lambda client: client.rerank(QUERY, documents, rank_fields=["title"]))

    assert titles.results[0].document == DOCUMENTS[1]
    assert "Nothing." in every.results[0].document


def test_a_long_document_is_read_in_chunks(call: CallClient, url: str) -> None:
    long = "and so on " * 3000 + DOCUMENTS[1]

    answer = call(
        url,
        lambda client: client.rerank(
            QUERY, [long], max_tokens_per_doc=200, max_chunks_per_doc=99, overlap_tokens=20
        ),
    )
    cut = call(url, lambda client: client.rerank(QUERY, [long], max_tokens_per_doc=200))

    assert answer.results[0].relevance_score > cut.results[0].relevance_score
    assert not any("unknown field" in warning for warning in answer.warnings)


def test_details_contain_the_position_of_the_best_chunk(call: CallClient, url: str) -> None:
    long = "🙂 and so on " * 3000 + DOCUMENTS[1]

    def details(**options: Any) -> Any:
        return call(url, lambda client: client.rerank(QUERY, [long], **options)).results[0].details

    whole = details(truncation="chunk", max_tokens_per_doc=200, return_details=True)
    end = details(truncation_side="left", max_tokens_per_doc=200, return_details=True)

    assert not whole.truncated
    assert end.truncated
    assert whole.chunk.index == whole.chunk.of - 1 > 10
    assert whole.tokens > end.tokens > 200
    for chunk in (whole.chunk, end.chunk):
        assert long[chunk.start : chunk.end].endswith(DOCUMENTS[1][-10:])
    assert details() is None


def test_relevant_spans_are_positions_in_the_document(call: CallClient, url: str) -> None:
    long = f"🙂 Lions hunt. {DOCUMENTS[1]} 面包由面粉和水制成。"

    def spans(**options: Any) -> Any:
        answer = call(url, lambda client: client.rerank(QUERY, [long], **options))
        assert answer.warnings == ()
        return answer.results[0].relevant_spans

    first, *_ = spans(relevant_spans=True)
    assert long[first.start : first.end] == QUERY
    assert 0 < first.score <= 1
    assert spans(relevant_spans={"max_spans": 1, "threshold": 0.1}) == (first,)
    assert len(spans(relevant_spans={"threshold": 0.0})) == 4
    assert spans() == ()


def test_an_api_key_is_accepted_and_a_wrong_one_is_unauthorized(call: CallClient) -> None:
    with serving("--engine", "fake", "--api-key", "sesame") as server:
        assert call(server.url, lambda client: client.score("q", ["d"]), api_key="sesame").scores

        with pytest.raises(Unauthorized) as caught:
            call(server.url, rerank, api_key="guess")

    assert caught.value.status == 401


def test_score_keeps_the_order_and_agrees_with_rerank(call: CallClient, url: str) -> None:
    scores = call(url, lambda client: client.score(QUERY, DOCUMENTS)).scores
    results = call(url, lambda client: client.rerank(QUERY, DOCUMENTS)).results

    assert scores == (results[1].relevance_score, results[0].relevance_score)


def test_score_takes_pairs_and_a_single_document(call: CallClient, url: str) -> None:
    pairs = call(url, lambda client: client.score(["a fox", "a whale"], ["a fox", "a fox"]))
    single = call(url, lambda client: client.score("a fox", "a fox", raw_scores=False))
    logit = call(url, lambda client: client.score("a fox", {"text": "a fox"}, raw_scores=True))

    assert pairs.scores[0] > pairs.scores[1]
    assert single.scores == pairs.scores[:1]
    assert logit.scores[0] == pytest.approx(math.log(1 / (1 / single.scores[0] - 1)), rel=1e-4)
    assert logit.warnings == ()


def test_a_batch_keeps_the_order_and_returns_each_error_in_its_place(
    call: CallClient, url: str
) -> None:
    requests: list[RerankRequest] = [
        {"query": f"question {number}", "documents": [f"document {number}"]} for number in range(20)
    ]
    requests[7]["query"] = " "

    answers = call(url, lambda client: client.batch(iter(requests), concurrency=4))

    assert isinstance(answers[7], BadRequest)
    assert answers[7].param == "query"
    del answers[7], requests[7]
    assert [answer.results[0].document for answer in answers] == [
        text for request in requests for text in request["documents"]
    ]


def test_models_and_health(call: CallClient, url: str) -> None:
    [model] = call(url, lambda client: client.models())

    assert model.id == "builtin"
    assert model.max_model_len > 0
    assert call(url, lambda client: client.health()) is True


def test_an_error_has_the_fields_of_the_server_s_error(call: CallClient, url: str) -> None:
    with pytest.raises(BadRequest, match="priority") as caught:
        call(url, lambda client: client.rerank(QUERY, DOCUMENTS, priority=1000))

    assert caught.value.status == 400
    assert caught.value.code == "invalid_request"
    assert caught.value.param == "priority"
    assert caught.value.request_id


def test_the_server_refuses_an_empty_list_of_documents(call: CallClient, url: str) -> None:
    with pytest.raises(BadRequest, match="documents must not be empty"):
        call(url, lambda client: client.rerank(QUERY, []))


def test_the_model_of_a_call_overrides_the_client_s(call: CallClient, url: str) -> None:
    answer = call(
        url, lambda client: client.rerank(QUERY, DOCUMENTS, model="default"), model="other"
    )

    assert answer.model == "default"


def test_a_lone_surrogate_is_replaced(call: CallClient, url: str) -> None:
    answer = call(url, lambda client: client.rerank(QUERY, ["half an emoji: \ud83d", "北京"]))

    assert {result.document for result in answer.results} == {"half an emoji: \ufffd", "北京"}


def test_the_server_s_time_limit_raises_timed_out(call: CallClient, url: str) -> None:
    documents = [f"document {number} " + "and so on " * 100 for number in range(500)]

    with pytest.raises(TimedOut) as caught:
        call(url, lambda client: client.rerank(QUERY, documents, timeout_ms=1))

    assert caught.value.status == 504


@pytest.mark.parametrize("ending", ["/", "/v1", "/v1/"])
def test_a_base_url_may_end_in_v1_or_a_slash(call: CallClient, url: str, ending: str) -> None:
    assert call(url + ending, lambda client: client.health())


def test_many_threads_share_a_client(url: str) -> None:
    documents = {number: f"document {number}" for number in range(32)}
    first: dict[int, str | None] = {}

    with Client(url) as client:

        def work(number: int) -> None:
            first[number] = client.rerank("q", [documents[number]]).results[0].document

        threads = [threading.Thread(target=work, args=[number]) for number in documents]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert first == documents


@pytest.mark.anyio
async def test_the_client_can_be_used_after_a_cancelled_call(url: str) -> None:
    async with AsyncClient(url) as client:
        slow = asyncio.create_task(client.rerank(QUERY, ["and so on " * 500] * 500))
        await asyncio.sleep(0.05)
        slow.cancel()
        await asyncio.wait([slow])

        assert slow.cancelled()
        assert await client.health()


def test_a_single_document_instead_of_a_list_is_a_type_error(call: CallClient, url: str) -> None:
    with pytest.raises(TypeError, match="give a list"):
        call(url, lambda client: client.rerank("q", "document"))
    with pytest.raises(TypeError, match="give a list"):
        call(url, lambda client: client.batch([{"query": "q", "documents": "document"}]))


def test_an_unknown_option_is_a_type_error(call: CallClient, url: str) -> None:
    with pytest.raises(TypeError, match="'top_k'"):
        call(url, lambda client: client.rerank("q", ["d"], top_k=3))
    with pytest.raises(TypeError, match="'top_n'"):
        call(url, lambda client: client.score("q", ["d"], top_n=3))


def test_a_concurrency_of_zero_is_a_value_error(call: CallClient, url: str) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        call(url, lambda client: client.batch([], concurrency=0))


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://x", "http://", "http://x:port", ""])
def test_a_malformed_base_url_is_a_value_error(address: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        Client(address)


def test_an_error_can_be_pickled() -> None:
    problem = pickle.loads(pickle.dumps(Overloaded("later", status=429, retry_after=2)))

    assert str(problem) == "later"
    assert (problem.status, problem.retry_after) == (429, 2)


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", [["serve"], ["--version"], ["eval", "--help"]], ids=str)
def test_the_command_without_the_server_says_what_to_install(command: list[str]) -> None:
    ended = python(
        "import sys; sys.modules['pydantic'] = None\n"
        f"from rankd.cli.main import main; sys.exit(main({command}))"
    )

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(
        "rankd: only the client, rankd.client, is installed (pydantic is missing); the server "
    )
    assert ended.stderr.endswith("[native]'\n")


def test_the_client_imports_nothing_of_the_server() -> None:
    ended = python(
        "import sys, rankd.client\n"
        "print(*(name for name in sys.modules if name.startswith('rankd.')))\n"
        "print(*sys.modules.keys() & {'fastapi', 'pydantic', 'uvicorn', 'tokenizers', 'torch'})"
    )

    ours, heavy = ended.stdout.splitlines()
    assert "rankd.client" in ours.split()
    assert all(name.startswith("rankd.client") for name in ours.split())
    assert heavy == ""
