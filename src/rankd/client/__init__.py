"""Ask a rankd server from Python: `Client`, and `AsyncClient` for asyncio.

    with Client("http://127.0.0.1:8000") as client:
        answer = client.rerank("capital of China?", ["Beijing is the capital.", "Lions roar."])
        print(answer.results[0].document, answer.results[0].relevance_score)

Whatever is no answer is raised as a `RankdError`; errors.py draws the tree. What a further
attempt may mend is tried again: the waits grow, follow `Retry-After` (up to 30 seconds) and
never outlast the `timeout` of the call.

Of rankd this imports its version only: a program that asks never loads the server.
"""

from __future__ import annotations

try:
    import httpx as _  # noqa: F401
except ModuleNotFoundError as problem:
    raise ImportError("rankd.client needs httpx: pip install 'rankd[client]'") from problem

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
