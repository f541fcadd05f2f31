"""Python client of a rankd server: `Client`, and `AsyncClient` for asyncio.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.rerank("capital of China?", ["Beijing is the capital.", "Lions roar."])
        print(answer.results[0].document, answer.results[0].relevance_score)

Every failure is raised as a `RankdError`; errors.py lists the classes. Temporary failures are
retried: the waits grow, follow `Retry-After` (up to 30 seconds) and never exceed the call's
`timeout`.

This package imports nothing else of rankd but its version, so no program loads the server.
"""

from __future__ import annotations

from rankd.client.clients import AsyncClient, Client
from rankd.client.errors import (
    BadAnswer,
    BadRequest,
    ConnectionFailed,
    ConnectionLost,
    Overloaded,
    RankdError,
    ServerFault,
    TimedOut,
    Unauthorized,
    Unavailable,
)
from rankd.client.payloads import (
    Chunk,
    Details,
    Model,
    RelevantSpan,
    RelevantSpans,
    RerankOptions,
    RerankRequest,
    RerankResponse,
    Result,
    ScoreOptions,
    ScoreResponse,
    Text,
    Usage,
)

__all__ = [
    "AsyncClient",
    "BadAnswer",
    "BadRequest",
    "Chunk",
    "Client",
    "ConnectionFailed",
    "ConnectionLost",
    "Details",
    "Model",
    "Overloaded",
    "RankdError",
    "RelevantSpan",
    "RelevantSpans",
    "RerankOptions",
    "RerankRequest",
    "RerankResponse",
    "Result",
    "ScoreOptions",
    "ScoreResponse",
    "ServerFault",
    "Text",
    "TimedOut",
    "Unauthorized",
    "Unavailable",
    "Usage",
]
