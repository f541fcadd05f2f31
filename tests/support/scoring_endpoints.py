"""Every endpoint that gives scores, with a body for each, and the scores in their responses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi.testclient import TestClient

from rankd.config.settings import Settings
from rankd.dialects import DIALECTS
from rankd.dialects.base import Dialect
from support.calling import calling
from support.dialects import home, with_documents

Json = dict[str, Any]

QUERY = "What is the capital of China?"
TEXTS = ["Lions hunt at night.", "The capital of China is Beijing.", "Blue whales sing."]
BODY: Json = {"query": QUERY, "documents": TEXTS}

ANIMALS = ["Zebras graze", "Walruses swim", "Badgers dig", "Ocelots climb"]


def example(dialect: Dialect) -> Json:
    """A dialect's own example with `ANIMALS` as documents, without fields that tests set."""
    body = with_documents(dialect.Request.model_json_schema()["example"], ANIMALS)
    body.pop("rerankingConfiguration", None)
    left_out = ("instruct", "instruction", "model", "top_n", "top_k", "topN", "parameters")
    return {name: body[name] for name in body if name not in (*left_out, "rank_fields")}


# Path and body of every endpoint that gives scores: one for each dialect, and the others.
ENDPOINTS: list[tuple[str, Json]] = [
    (home(dialect, "builtin"), example(dialect)) for dialect in DIALECTS
]
ENDPOINTS += [
    ("/v1/rerank", {"query": QUERY, "documents": ANIMALS}),
    ("/v1/score", {"queries": QUERY, "documents": ANIMALS}),
    ("/invocations", {"text_1": QUERY, "text_2": ANIMALS}),
    ("/simple/batch_rerank", {"queries": [QUERY], "documents": [ANIMALS]}),
]
every_endpoint = pytest.mark.parametrize(
    ("path", "body"), ENDPOINTS, ids=[f"{index}{path}" for index, (path, _) in enumerate(ENDPOINTS)]
)


@contextmanager
def opened(**settings: Any) -> Iterator[TestClient]:
    """The app on the fake engine, without a cache."""
    with calling(Settings(**{"engine": "fake", "cache_mb": 0, **settings})) as client:
        yield client


def counted(page: str, metric: str) -> dict[str, float]:
    """The values of a metric in the text of /metrics, by its only label, else by its name."""
    lines = [line for line in page.splitlines() if line.startswith(metric)]
    return {[*line.split('"'), metric][1]: float(line.split()[-1]) for line in lines}


def numbers(answer: Any, *names: str) -> list[float]:
    """Every score in a response of any dialect, in order."""
    names = names or ("score", "relevance_score", "relevanceScore", "logit", "scores")
    match answer:
        case list():
            return [number for item in answer for number in numbers(item, *names)]
        case dict():
            scores: list[float] = []
            for name, value in answer.items():
                if name in names and isinstance(value, float | int):
                    scores.append(value)
                elif name in names and value and isinstance(value[0], float):
                    scores += value
                else:
                    scores += numbers(value, *names)
            return scores
    return []
