"""`Client` and `AsyncClient`: the same calls, blocking and with asyncio."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar, Unpack, cast

import httpx

from rankd import __version__
from rankd.client import payloads
from rankd.client.call import Call
from rankd.client.errors import ConnectionFailed, RankdError, TimedOut, Unavailable
from rankd.client.payloads import (
    Model,
    RerankOptions,
    RerankRequest,
    RerankResponse,
    ScoreOptions,
    ScoreResponse,
    Text,
)

T = TypeVar("T")

# The server closes idle connections after 75 seconds. The client closes them first, so that no
# request is sent on a connection that is being closed.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=30.0)

# Errors for which `health` returns False.
_NOT_READY = (Unavailable, TimedOut, ConnectionFailed)


class _Shared:
    """What both clients share: requests and responses, without I/O."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        retries: int = 2,
        model: str | None = None,
        headers: Mapping[str, str] | None = None,
        verify: str | Path | ssl.SSLContext | bool = True,
    ) -> None:
        """Create a client. It connects on the first call.

        Args:
            base_url: may contain a path; a final `/v1` is ignored.
            api_key: sent as `Authorization: Bearer`.
            timeout: seconds for one call, retries included.
            retries: maximum number of retries after a temporary failure.
            model: model name to send; None uses the served model.
            headers: sent with every request.
            verify: for https, a file with the certificates of your own authority, or an
                `SSLContext`. True: the usual authorities; False: accept any certificate.

        Raises:
            ValueError: `base_url` is not an http or https URL, or `verify` is a file without
                certificates.
        """
        self._base = _checked(base_url)
        self._timeout = timeout
        self._retries = retries
        self._model = model
        key = {"Authorization": f"Bearer {api_key.strip()}"} if api_key else {}
        agent = {"User-Agent": f"rankd-python/{__version__}"}
        self._open({**agent, **key, **(headers or {})}, _verifier(verify))

    def _open(self, headers: Mapping[str, str], verify: ssl.SSLContext | bool) -> None:
        raise NotImplementedError

    def _rerank(self, request: RerankRequest) -> Call[RerankResponse]:
        payloads.refuse_unknown(request, RerankRequest)
        whole = request.get("rank_fields") is not None
        body = {**request, "documents": payloads.texts(request["documents"], whole=whole)}
        return self._post("/v1/rerank", body, payloads.rerank_response)

    def _score(
        self,
        queries: str | Iterable[str],
        documents: Text | Iterable[Text],
        options: ScoreOptions,
    ) -> Call[ScoreResponse]:
        payloads.refuse_unknown(options, ScoreOptions)
        single = isinstance(documents, str | Mapping)
        raw = options.get("raw_scores")
        body = {
            **options,
            "queries": queries if isinstance(queries, str) else list(queries),
            "documents": payloads.texts(cast(Iterable[Text], [documents] if single else documents)),
            # /v1/score has vLLM's request, which calls it `use_activation`.
            "raw_scores": None,
            "use_activation": None if raw is None else not raw,
        }
        return self._post("/v1/score", body, payloads.score_response)

    def _models(self) -> Call[tuple[Model, ...]]:
        url = f"{self._base}/v1/models"
        return Call("GET", url, None, payloads.model_list, self._timeout, self._retries)

    def _health(self) -> Call[bool]:
        return Call("GET", f"{self._base}/readyz", None, payloads.ready, self._timeout, retries=0)

    def _post(self, path: str, body: dict[str, Any], read: Callable[[Any], T]) -> Call[T]:
        timeout = body.pop("timeout", None)
        body["model"] = body.get("model") or self._model
        return Call(
            "POST",
            self._base + path,
            payloads.encoded({name: value for name, value in body.items() if value is not None}),
            read,
            self._timeout if timeout is None else timeout,
            self._retries,
        )


class Client(_Shared):
    """Blocking client of a rankd server. Thread-safe; connections are reused."""

    def _open(self, headers: Mapping[str, str], verify: ssl.SSLContext | bool) -> None:
        self._http = httpx.Client(headers=headers, limits=_LIMITS, verify=verify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The client cannot be used afterwards."""
        self._http.close()

    def rerank(
        self, query: str, documents: Iterable[Text], **options: Unpack[RerankOptions]
    ) -> RerankResponse:
        """Order documents by their relevance to a query, best first.

        Raises:
            RankdError: the call failed; errors.py lists the classes.
            TypeError: an option is unknown, or `documents` is a single document.
        """
        return self._call(self._rerank({"query": query, "documents": documents, **options}))

    def score(
        self,
        queries: str | Iterable[str],
        documents: Text | Iterable[Text],
        **options: Unpack[ScoreOptions],
    ) -> ScoreResponse:
        """Score documents against one query, or each document against its own query.

        Raises:
            RankdError: as `rerank`.
            TypeError: an option is unknown.
        """
        return self._call(self._score(queries, documents, options))

    def batch(
        self, requests: Iterable[RerankRequest], *, concurrency: int = 8
    ) -> list[RerankResponse | RankdError]:
        """Rerank many requests, `concurrency` at a time.

        Returns one response or error per request, in the order of the requests.
        """

        def outcome(request: RerankRequest) -> RerankResponse | RankdError:
            try:
                return self._call(self._rerank(request))
            except RankdError as problem:
                return problem

        with ThreadPoolExecutor(_at_least_one(concurrency), "rankd-batch") as pool:
            return list(pool.map(outcome, requests))

    def models(self) -> tuple[Model, ...]:
        """The served model."""
        return self._call(self._models())

    def health(self) -> bool:
        """Whether the server can score now; without retries."""
        try:
            return self._call(self._health())
        except _NOT_READY:
            return False

    def _call(self, call: Call[T]) -> T:
        while True:
            try:
                return self._attempt(call)
            except RankdError as problem:
                pause = call.pause(problem)
            time.sleep(pause)

    def _attempt(self, call: Call[T]) -> T:
        with (
            call.translated_errors(),
            self._http.stream(
                call.method, call.url, content=call.content, timeout=call.left()
            ) as reply,
        ):
            body = bytearray()
            for chunk in reply.iter_bytes():
                call.left()  # httpx' timeout is per read: a slow response would never time out.
                body += chunk
            return call.result(reply, bytes(body))


class AsyncClient(_Shared):
    """Asyncio client of a rankd server. Connections are reused."""

    def _open(self, headers: Mapping[str, str], verify: ssl.SSLContext | bool) -> None:
        self._http = httpx.AsyncClient(headers=headers, limits=_LIMITS, verify=verify)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections. The client cannot be used afterwards."""
        await self._http.aclose()

    async def rerank(
        self, query: str, documents: Iterable[Text], **options: Unpack[RerankOptions]
    ) -> RerankResponse:
        """As `Client.rerank`. Cancelling it cancels the request on the server, too."""
        return await self._call(self._rerank({"query": query, "documents": documents, **options}))

    async def score(
        self,
        queries: str | Iterable[str],
        documents: Text | Iterable[Text],
        **options: Unpack[ScoreOptions],
    ) -> ScoreResponse:
        """As `Client.score`."""
        return await self._call(self._score(queries, documents, options))

    async def batch(
        self, requests: Iterable[RerankRequest], *, concurrency: int = 8
    ) -> list[RerankResponse | RankdError]:
        """As `Client.batch`. Requests are read from the iterable one by one."""
        waiting = enumerate(requests)
        outcomes: dict[int, RerankResponse | RankdError] = {}

        async def work() -> None:
            for index, request in waiting:
                try:
                    response = await self._call(self._rerank(request))
                except RankdError as problem:
                    outcomes[index] = problem
                else:
                    outcomes[index] = response

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_at_least_one(concurrency)):
                    group.create_task(work())
        except ExceptionGroup as problems:
            raise problems.exceptions[0] from None  # A TypeError, as from Client.
        return [outcomes[index] for index in sorted(outcomes)]

    async def models(self) -> tuple[Model, ...]:
        """As `Client.models`."""
        return await self._call(self._models())

    async def health(self) -> bool:
        """As `Client.health`."""
        try:
            return await self._call(self._health())
        except _NOT_READY:
            return False

    async def _call(self, call: Call[T]) -> T:
        while True:
            try:
                return await self._attempt(call)
            except RankdError as problem:
                pause = call.pause(problem)
            await asyncio.sleep(pause)

    async def _attempt(self, call: Call[T]) -> T:
        left = call.left()
        with call.translated_errors():
            async with asyncio.timeout(left):
                reply = await self._http.request(
                    call.method, call.url, content=call.content, timeout=left
                )
        return call.result(reply, reply.content)


def _checked(base_url: str) -> str:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as problem:
        raise ValueError(f"base_url {base_url!r}: {problem}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError(f"base_url must look like http://127.0.0.1:8000, not {base_url!r}")
    return base_url.rstrip("/").removesuffix("/v1")


def _verifier(verify: str | Path | ssl.SSLContext | bool) -> ssl.SSLContext | bool:
    if not isinstance(verify, str | Path):
        return verify
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as problem:  # An SSLError, too.
        raise ValueError(f"verify {str(verify)!r}: {problem}") from None


def _at_least_one(concurrency: int) -> int:
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, not {concurrency}")
    return concurrency
