"""Usage in responses equals the counts in /metrics and those of a reference tokenizer."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import pytest
from fastapi.testclient import TestClient
from transformers import AutoTokenizer

from rankd.config.settings import Settings
from rankd.dialects import DIALECTS
from rankd.dialects.base import Dialect
from rankd.dialects.resolved import RequestContext
from rankd.models.checkpoint import BUILTIN, locate
from rankd.prompts import open_encoder
from rankd.ranking.ranker import Ranker
from rankd.ranking.service import ModelService
from rankd.server.app import build
from rankd.server.middleware import KeyRing
from rankd.types import RankRequest
from support.calling import calling
from support.dialects import example, home
from support.slow_engine import Slow

INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"
PREFIX = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query "
    'and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n"
)
SUFFIX = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

# The fields of the header `x-rankd-usage`, and their counters.
COUNTERS = {
    "documents": "rankd_documents_total",
    "cached_documents": "rankd_cached_documents_total",
    "prompt_tokens": "rankd_prompt_tokens_total",
    "cached_tokens": "rankd_cached_tokens_total",
    "search_units": "rankd_search_units_total",
}
COMPUTED = "rankd_computed_tokens_total"

MAX_TOKENS = 400

each_dialect = pytest.mark.parametrize(
    "dialect", DIALECTS, ids=lambda dialect: type(dialect).__name__
)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """The whole app on the fake engine, with a cache and a limit that long documents exceed."""
    with calling(Settings(engine="fake", max_tokens=MAX_TOKENS)) as client:
        yield client


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(locate(BUILTIN).path)


def count_tokens(text: str) -> int:
    return len(tokenizer()(text, add_special_tokens=False)["input_ids"])


def pair_tokens(query: str, document: str, instruction: str | None = None) -> int:
    """Tokens of a pair in Qwen's template, by the reference tokenizer; at most the limit."""
    question = f"<Instruct>: {instruction or INSTRUCTION}\n<Query>: {query}\n<Document>:"
    return min(MAX_TOKENS, count_tokens(f"{PREFIX}{question} {document}{SUFFIX}"))


def units(query: str, documents: tuple[str, ...]) -> int:
    """Cohere's rule, for documents of fewer than 500 tokens: only their number counts."""
    assert all(count_tokens(query) + count_tokens(document) <= 500 for document in documents)
    return -(-len(documents) // 100)


def counters(client: TestClient) -> dict[str, int]:
    text = client.get("/metrics").text
    names = {**COUNTERS, "computed_tokens": COMPUTED}
    return {
        name: int(float(re.findall(rf"^{counter} (\S+)$", text, re.MULTILINE)[0]))
        for name, counter in names.items()
    }


def usage_of(headers: Any) -> dict[str, int]:
    """`x-rankd-usage: documents=2, prompt_tokens=160, ...`"""
    members = [member.split("=") for member in headers["x-rankd-usage"].split(", ")]
    return {name: int(value) for name, value in members}


def values_of(answer: Any, wanted: set[str]) -> dict[str, list[int]]:
    """For each of these names, all of its values anywhere in a response."""
    found: dict[str, list[int]] = {}
    if isinstance(answer, list):
        parts = [values_of(item, wanted) for item in answer]
    elif isinstance(answer, dict):
        parts = [values_of(value, wanted) for value in answer.values()]
        found = {name: [answer[name]] for name in wanted & set(answer)}
    else:
        return {}
    for part in parts:
        for name, values in part.items():
            found.setdefault(name, []).extend(values)
    return found


# Vendors' names of the fields of usage.
NAMES = {
    "prompt_tokens": "prompt_tokens",
    "total_tokens": "prompt_tokens",
    "input_tokens": "prompt_tokens",
    "cached_tokens": "cached_tokens",
    "cached_documents": "cached_documents",
    "search_units": "search_units",
    "rerank_units": "search_units",
}


def check_body(answer: Any, usage: dict[str, int], dialect: str) -> None:
    found = values_of(answer, set(NAMES))
    if dialect == "sglang":  # It has the tokens of each result.
        assert sum(found["prompt_tokens"]) == usage["prompt_tokens"]
        return
    for name, values in found.items():
        assert set(values) == {usage[NAMES[name]]}, name


@each_dialect
def test_each_dialect_counts_as_the_reference_tokenizer_does(
    client: TestClient, dialect: Dialect
) -> None:
    body = {name: value for name, value in example(dialect).items() if name not in ("top_n",)}
    body["timeout_ms"] = 600_000  # No dialect's own example has it.
    request = dialect.Request.model_validate(body).resolve(RequestContext()).rank
    expected = {
        "documents": len(request.documents),
        "prompt_tokens": sum(
            pair_tokens(request.query, text, request.instruction) for text in request.documents
        ),
        "search_units": units(request.query, request.documents),
    }

    replies = []
    for cache_ in (False, None, None):
        before = counters(client)
        reply = client.post(home(dialect), json=body | {"cache": cache_})
        assert reply.status_code == 200, reply.text
        usage = usage_of(reply.headers)
        gained = {name: now - before[name] for name, now in counters(client).items()}
        assert usage.items() >= expected.items()
        assert gained | usage == gained
        assert gained["computed_tokens"] == usage["prompt_tokens"] - usage["cached_tokens"]
        check_body(reply.json(), usage, dialect.name)
        if "x-compute-tokens" in reply.headers:
            assert int(reply.headers["x-compute-tokens"]) == usage["prompt_tokens"]
        replies.append(usage)

    computed, _, known = replies
    assert (computed["cached_documents"], computed["cached_tokens"]) == (0, 0)
    assert known["cached_documents"] == known["documents"]
    assert known["cached_tokens"] == known["prompt_tokens"]


WORDS = ["lion", "gravity", "Peking", "重力", "naïve", "rain-", "\n", "🙂", "x=1;", "the", "of"]


def _text(rng: random.Random, max_words: int) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randrange(1, max_words))).strip()


def _random_request(
    rng: random.Random, pool: list[str]
) -> tuple[str, dict[str, Any], list[RankRequest]]:
    """A path, a body in one of several dialects, and its requests; documents may be equal."""
    query = rng.choice(["lions?", "重力 in the rain", "x"])
    documents = [rng.choice(pool) for _ in range(rng.randrange(1, 12))]
    match rng.randrange(5):
        case 0:
            return (
                "/v1/rerank",
                {"query": query, "documents": documents},
                [_rank_request(query, documents)],
            )
        case 1:
            body: dict[str, Any] = {"query": query, "documents": documents, "top_k": 1}
            return "/voyage/v1/rerank", body, [_rank_request(query, documents)]
        case 2:
            return (
                "/rerank",
                {"query": query, "texts": documents},
                [_rank_request(query, documents)],
            )
        case 3:
            body = {"text_1": query, "text_2": documents}
            return "/v1/score", body, [_rank_request(query, documents)]
    other = rng.choice(["y", "lions!"])
    body = {"queries": [query, other], "documents": documents}
    requests = [_rank_request(query, documents), _rank_request(other, documents)]
    return "/simple/batch_rerank", body, requests


def _rank_request(query: str, documents: list[str]) -> RankRequest:
    return RankRequest(query, tuple(documents))


def test_the_usage_in_all_responses_adds_up_to_the_metrics(client: TestClient) -> None:
    rng = random.Random(6)
    pool = [_text(rng, 30) for _ in range(12)] + [_text(rng, 600) for _ in range(3)]
    assert any(pair_tokens("x", text) == MAX_TOKENS for text in pool)  # Some are truncated.
    seen: set[tuple[str, str]] = set()
    sums: Counter[str] = Counter()
    expected: Counter[str] = Counter()
    before = counters(client)

    for _ in range(40):
        path, body, requests = _random_request(rng, pool)
        reply = client.post(path, json=body)
        assert reply.status_code == 200, reply.text
        sums.update(usage_of(reply.headers))
        pairs = [(request.query, text) for request in requests for text in request.documents]
        sizes = {pair: pair_tokens(*pair) for pair in set(pairs)}
        cached = [pair for pair in pairs if pair in seen]
        expected["documents"] += len(pairs)
        expected["cached_documents"] += len(cached)
        expected["prompt_tokens"] += sum(sizes[pair] for pair in pairs)
        expected["cached_tokens"] += sum(sizes[pair] for pair in cached)
        expected["computed_tokens"] += sum(sizes[pair] for pair in set(pairs) - seen)
        expected["search_units"] += len(requests)
        seen |= set(pairs)

    gained = {name: now - before[name] for name, now in counters(client).items()}
    assert gained == expected
    assert sums == Counter({name: expected[name] for name in COUNTERS})
    assert sums["cached_tokens"] > 0
    # Equal documents in one request: each counts, but only one is computed.
    assert expected["prompt_tokens"] - expected["cached_tokens"] > expected["computed_tokens"]


def test_a_batch_rerank_reports_the_usage_of_all_its_requests(client: TestClient) -> None:
    first = {"query": "many in one", "documents": ["Bread.", "Butter.", "Bread."]}
    parts: list[dict[str, Any]] = [
        first,
        {"query": "many in one, too", "texts": ["Bread. " * MAX_TOKENS]},  # TEI's; it is truncated.
        {"query": "refused", "documents": []},
        first | {"score_threshold": 1, "nonsense": 1},
    ]
    client.post("/v1/rerank", json=first)
    alone = client.post("/v1/rerank", json=first)
    before = counters(client)

    reply = client.post("/v1/batch_rerank", json={"requests": parts})

    assert [part["status_code"] for part in reply.json()["results"]] == [200, 200, 400, 200]
    gained = {name: now - before[name] for name, now in counters(client).items()}
    computed = gained.pop("computed_tokens")
    assert usage_of(reply.headers) == gained
    assert gained["documents"] == 7
    assert gained["search_units"] == 3
    assert gained["cached_documents"] == int(reply.headers["x-rankd-cached"]) == 6
    assert gained["prompt_tokens"] == 2 * alone.json()["usage"]["prompt_tokens"] + MAX_TOKENS
    assert computed == MAX_TOKENS
    assert reply.headers["rankd"] == alone.headers["rankd"]
    assert reply.headers["x-rankd-below-threshold"] == "3"
    warnings = reply.headers["x-rankd-warnings"].split("; ")
    assert [warning.split(": ")[0] for warning in warnings] == ["requests[1]", "requests[3]"]


def test_a_batch_rerank_without_results_reports_no_usage(client: TestClient) -> None:
    reply = client.post("/v1/batch_rerank", json={"queries": ["q"], "documents": []})

    assert set(usage_of(reply.headers).values()) == {0}
    assert "x-rankd-below-threshold" not in reply.headers


def test_a_document_in_chunks_counts_every_chunk_and_every_cached_chunk(client: TestClient) -> None:
    text = "one two three four five six seven eight nine ten eleven twelve"
    body = {"query": "chunks", "documents": [text], "max_tokens_per_doc": 5}
    empty = pair_tokens("chunks", "one") - count_tokens(" one")
    assert pair_tokens("chunks", text) - empty >= 13  # Every chunk below is full.
    before = counters(client)

    cut = client.post("/v1/rerank", json=body).json()
    two = client.post("/v1/rerank", json=body | {"max_chunks_per_doc": 2}).json()
    three = client.post(
        "/v1/rerank", json=body | {"max_chunks_per_doc": 3, "overlap_tokens": 1}
    ).json()

    assert cut["usage"] == _usage(empty + 5, cached=0)
    # The first chunk has the tokens that truncation kept before, so it is cached.
    assert two["usage"] == _usage(2 * empty + 10, cached=empty + 5)
    assert two["meta"]["cached_documents"] == 0
    assert three["usage"] == _usage(3 * empty + 15, cached=empty + 5)
    gained = {name: now - before[name] for name, now in counters(client).items()}
    assert gained["prompt_tokens"] == 6 * empty + 30
    assert gained["cached_tokens"] == 2 * empty + 10
    assert gained["computed_tokens"] == 4 * empty + 20
    assert gained["documents"] == gained["search_units"] == 3


def _usage(tokens: int, cached: int) -> dict[str, int]:
    return {"prompt_tokens": tokens, "total_tokens": tokens, "cached_tokens": cached}


def test_documents_longer_than_500_tokens_are_billed_as_several() -> None:
    with calling(Settings(engine="fake")) as client:
        # A query of one token, and documents of 499 and 500.
        assert [count_tokens(text) for text in ("x", " one" * 499, " one" * 500)] == [1, 499, 500]

        def billed(*documents: str) -> int:
            body = {"query": "x", "documents": [text.strip() for text in documents]}
            replies = [client.post(path, json=body) for path in ("/rerank", "/cohere/v2/rerank")]
            units = {reply.json()["meta"]["billed_units"]["search_units"] for reply in replies}
            assert {usage_of(reply.headers)["search_units"] for reply in replies} == units
            return int(units.pop())

        assert billed(*[" one" * 499] * 100) == 1
        assert billed(*[" one" * 499] * 99, " one" * 500) == 2
        assert billed(*[" one" * (2 * 499)] * 50) == 1
        assert billed(*[" one" * (2 * 499 + 1)] * 50) == 2


def test_documents_that_are_not_scored_in_time_are_not_counted() -> None:
    encoder = open_encoder(
        locate(BUILTIN),
        max_tokens=MAX_TOKENS,
        instruction=INSTRUCTION,
        max_instruction_tokens=512,
        executor=ThreadPoolExecutor(1),
    )
    ranker = Ranker(encoder, Slow(ready=2), max_documents=1000, counted=True)
    app = build(ModelService(ranker, "slow"), Settings(engine="fake", access_log=False), KeyRing())
    client = TestClient(app)
    documents = [f"lion number {index}" for index in range(150)]
    body = {"query": "lions", "documents": documents, "timeout_ms": 50}
    sizes = [pair_tokens("lions", text) for text in documents]
    before = counters(client)

    late = client.post("/v1/rerank", json=body)
    part = client.post("/v1/rerank", json=body | {"partial": True})

    assert (late.status_code, part.status_code) == (504, 200)
    usage = usage_of(part.headers)
    assert (usage["documents"], usage["search_units"]) == (2, 1)
    assert part.json()["usage"]["prompt_tokens"] == usage["prompt_tokens"] == sum(sizes[:2])
    gained = {name: now - before[name] for name, now in counters(client).items()}
    assert gained == usage | {"computed_tokens": 2 * sum(sizes[:2])}


def test_a_refused_request_counts_nothing(client: TestClient) -> None:
    before = counters(client)

    reply = client.post("/v1/rerank", json={"query": "q", "documents": []})

    assert reply.status_code == 400
    assert "x-rankd-usage" not in reply.headers
    assert counters(client) == before
    assert json.loads(reply.content)["error"]["param"] == "documents"


def test_the_self_check_is_not_counted() -> None:
    with calling(Settings(engine="fake")) as client:
        before = counters(client)
    with calling(Settings(engine="native", device="cpu", threads=1)) as client:
        assert counters(client) == before
