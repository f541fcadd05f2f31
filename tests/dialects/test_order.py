"""In every dialect results are ordered by logit, and equal logits in the request's order."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.dialects import DIALECTS
from rankd.dialects.base import Dialect
from rankd.dialects.deepinfra import DeepInfra
from rankd.dialects.tutorials import Simple
from rankd.dialects.weaviate import Weaviate
from rankd.engines.base import EngineInfo
from rankd.engines.fake import FakeEngine
from rankd.models.checkpoint import BUILTIN, locate
from rankd.prompts import open_encoder
from rankd.ranking.ranker import Ranker
from rankd.ranking.scheduler import Scheduler
from rankd.ranking.service import ModelService
from rankd.server.app import build
from rankd.server.middleware import KeyRing
from rankd.types import Prompt
from support.dialects import example, home, index_of, with_documents

# These answer with scores in the order of the request.
UNORDERED = (Weaviate, Simple, DeepInfra)
ORDERED = [dialect for dialect in DIALECTS if not isinstance(dialect, UNORDERED)]

# Their scores all print as 1.0. Document 3 is best; 1, 4 and 6 are equal.
LOGITS = [40.1, 40.5, 40.2, 41.0, 40.5, 40.0, 40.5]
BEST_FIRST = [3, 1, 4, 6, 2, 0, 5]


class Saturated(FakeEngine):
    """Different logits for documents of different length, whose scores all print as 1.0."""

    async def score(self, batch: Sequence[Prompt]) -> list[float]:
        shortest = min(len(prompt.suffix) for prompt in batch)
        return [LOGITS[len(prompt.suffix) - shortest] for prompt in batch]


@pytest.fixture(scope="module")
def saturated() -> TestClient:
    encoder = open_encoder(
        locate(BUILTIN),
        max_tokens=8192,
        instruction="Judge",
        max_instruction_tokens=512,
        executor=ThreadPoolExecutor(1),
    )
    engine = Saturated(EngineInfo("fake", "saturated", "0", "none", "none", 8192))
    ranker = Ranker(encoder, Scheduler(engine), max_documents=100)
    return TestClient(build(ModelService(ranker, "it"), Settings(access_log=False), KeyRing()))


def results_of(answer: Any) -> list[Any]:
    """The results in an answer of any dialect."""
    if isinstance(answer, list):
        return answer
    for name in ("results", "data", "rankings", "rerank", "records"):
        if name in answer:
            return list(answer[name])
    return list(answer["output"]["results"])


def body_of(dialect: Dialect, documents: list[str]) -> dict[str, Any]:
    """The dialect's example with other documents and without `top_n`."""
    body = with_documents(example(dialect), documents)
    body.get("parameters", {}).pop("top_n", None)
    limits = ("top_n", "top_k", "topN", "max_chunks_per_doc", "rerankingConfiguration")
    return {name: value for name, value in body.items() if name not in limits}


@pytest.mark.parametrize("dialect", ORDERED, ids=lambda dialect: type(dialect).__name__)
def test_results_with_equal_printed_scores_are_ordered_by_logit(
    saturated: TestClient, dialect: Dialect
) -> None:
    documents = [" one" * (1 + index) for index in range(len(LOGITS))]

    reply = saturated.post(home(dialect), json=body_of(dialect, documents))

    assert reply.status_code == 200, reply.text
    results = results_of(reply.json())
    assert [index_of(result) for result in results] == BEST_FIRST
    if dialect.name != "nim":  # It sends logits.
        names = ("relevance_score", "score", "relevanceScore")
        assert {result[name] for result in results for name in names if name in result} == {1.0}


def test_simple_orders_ranked_documents_by_logit(saturated: TestClient) -> None:
    documents = [" one" * (1 + index) for index in range(len(LOGITS))]
    body = {"query": "q", "documents": documents}
    both = {"queries": ["q", "r"], "documents": [documents, documents]}

    single = saturated.post("/simple/rerank", json=body).json()
    batch = saturated.post("/simple/batch_rerank", json=both).json()["results"]

    assert single["ranked_documents"] == [documents[index] for index in BEST_FIRST]
    assert [ranked["ranked_documents"] for ranked in batch] == [single["ranked_documents"]] * 2


@pytest.mark.parametrize("dialect", ORDERED, ids=lambda dialect: type(dialect).__name__)
def test_equal_documents_keep_the_order_of_the_request(
    client: TestClient, dialect: Dialect
) -> None:
    documents = ["the same", "another one", "the same", "the same"] * 3

    results = results_of(client.post(home(dialect), json=body_of(dialect, documents)).json())

    indexes = [index_of(result) for result in results]
    others = [index for index in indexes if index % 4 == 1]
    same = [index for index in indexes if index % 4 != 1]
    assert (same, others) == (sorted(same), sorted(others))
    assert indexes in (same + others, others + same)
