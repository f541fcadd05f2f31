"""Clients of all kinds at once; each is a task with its own random numbers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from api_formats import API_FORMATS, OPENAI, ApiFormat
from connections import OPERATOR_KEY, Connection, HttpAnswer, Lost, get, message
from corpus import DOCUMENTS, INSTRUCTED_QUERIES, Baseline, ChaosRequest
from invalid_requests import INVALID_REQUESTS, InvalidInput
from judge import ANSWERED, HANG, LEFT, LOST, REFUSED, UNDOCUMENTED, judge
from ledger import Ledger

# Seconds without an answer that count as a hang. Long, because the machine may be busy, and after
# each crash requests in flight run again one by one.
TIMEOUT = 180.0

# The only key whose clients exceed the rate limit.
OVER_LIMIT_KEY = "over-the-limit"
KEY_REQUESTS_PER_MINUTE = 120

# Keys for requests before and after the chaos.
BASELINE_KEY, REDIS_KEY, CACHE_KEY = "before-and-after", "of-redis", "of-the-cache"

MAX_DOCUMENTS = 200

KEYS = (
    *(f"key-{number}" for number in range(2 * len(API_FORMATS) + 9)),
    *(OVER_LIMIT_KEY, BASELINE_KEY, REDIS_KEY, CACHE_KEY, OPERATOR_KEY),
)


PIPELINED, SHORT_TIMEOUTS, OVER_LIMIT = (
    "openai, pipelined",
    "openai, short timeouts",
    "openai, over the rate limit",
)
MOSTLY_ANSWERED = (*(api.name for api in API_FORMATS), PIPELINED)
VALID = (*MOSTLY_ANSWERED, SHORT_TIMEOUTS, OVER_LIMIT)


@dataclass
class Workload:
    """Runs all clients.

    Attributes:
        baseline: right logits.
        ledger: gets the outcome of every request.
        stopping: when set, no client begins another request.
    """

    url: str
    baseline: Baseline
    ledger: Ledger
    seed: str
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, faults: Coroutine[Any, Any, None], seconds: float) -> None:
        """Run all clients for `seconds`, and until `faults` is done."""
        clients = [asyncio.create_task(client) for client in self._clients()]
        duration = asyncio.create_task(asyncio.sleep(seconds))
        try:
            await asyncio.gather(faults, duration)
        finally:
            self.stopping.set()
            await asyncio.gather(*clients)

    def _clients(self) -> list[Coroutine[Any, Any, None]]:
        keys = iter(KEYS)

        def new_rng() -> random.Random:
            return random.Random(f"{self.seed}/{next(numbers)}")

        numbers = iter(range(10_000))
        requesting = [
            self._sends_valid(api, next(keys), new_rng(), keep_alive=keep_alive)
            for api in API_FORMATS
            for keep_alive in (True, False)
        ]
        disconnecting = [
            self._disconnects(stage, next(keys), new_rng())
            for stage in (in_body, while_waiting, in_answer)
        ]
        return [
            *requesting,
            *disconnecting,
            self._pipelines(next(keys), new_rng()),
            self._has_short_timeouts(next(keys), new_rng()),
            self._has_short_timeouts(next(keys), new_rng()),
            *(self._exceeds_rate_limit(new_rng()) for _ in range(6)),
            self._sends_too_many_documents(next(keys), new_rng()),
            self._has_wrong_key(new_rng()),
            self._sends_invalid(next(keys), new_rng()),
            self._sends_invalid(next(keys), new_rng()),
            self._probes(),
        ]

    async def _pause(self, rng: random.Random, max_seconds: float = 0.4) -> None:
        await asyncio.sleep(rng.uniform(0, max_seconds))

    # Clients that send valid requests.

    async def _sends_valid(
        self, api: ApiFormat, key: str, rng: random.Random, *, keep_alive: bool
    ) -> None:
        async with Connection(self.url) as connection:
            while not self.stopping.is_set():
                await self._send(connection, api, random_request(rng, api), key, api.name)
                if not keep_alive:
                    connection.drop()
                await self._pause(rng)

    async def _has_short_timeouts(self, key: str, rng: random.Random) -> None:
        async with Connection(self.url) as connection:
            while not self.stopping.is_set():
                extras = {"timeout_ms": rng.choice((20, 150, 800, 4000))}
                if rng.random() < 0.6:
                    extras |= {"partial": True, "cache": rng.random() < 0.5}
                request = random_request(rng, OPENAI, size=rng.randrange(5, 100), extras=extras)
                await self._send(connection, OPENAI, request, key, SHORT_TIMEOUTS)
                await self._pause(rng)

    async def _exceeds_rate_limit(self, rng: random.Random) -> None:
        """Sends more requests per minute than its key allows."""
        async with Connection(self.url) as connection:
            while not self.stopping.is_set():
                request = random_request(rng, OPENAI, size=2)
                await self._send(connection, OPENAI, request, OVER_LIMIT_KEY, OVER_LIMIT)

    async def _pipelines(self, key: str, rng: random.Random) -> None:
        """Sends two requests at once; their answers must come in order."""
        kind = PIPELINED
        async with Connection(self.url) as connection:
            while not self.stopping.is_set():
                requests = [random_request(rng, OPENAI), random_request(rng, OPENAI)]
                names = [self.ledger.open(kind) for _ in requests]
                data = b"".join(
                    message(OPENAI.path, OPENAI.body(request), key, name)
                    for request, name in zip(requests, names, strict=True)
                )
                for request, name in zip(requests, names, strict=True):
                    answer = await self._answer(connection, data, kind, name)
                    await self._judge(answer, OPENAI, request, kind, name)
                    data = b""
                await self._pause(rng)

    async def _send(
        self, connection: Connection, api: ApiFormat, request: ChaosRequest, key: str, kind: str
    ) -> None:
        name = self.ledger.open(kind)
        data = message(api.path, api.body(request), key, name)
        answer = await self._answer(connection, data, kind, name)
        await self._judge(answer, api, request, kind, name)

    async def _judge(
        self, answer: HttpAnswer | None, api: ApiFormat, request: ChaosRequest, kind: str, name: str
    ) -> None:
        if answer is None:
            return
        if answer.headers.get("x-request-id") != name:
            self.ledger.close(kind, name, UNDOCUMENTED, "the answer has another request's id")
            return
        outcome, why = judge(api, request, answer, self.baseline)
        self.ledger.close(kind, name, outcome, why)
        if answer.status in (429, 503):
            await asyncio.sleep(0.5)

    async def _answer(
        self, connection: Connection, data: bytes, kind: str, name: str
    ) -> HttpAnswer | None:
        try:
            async with asyncio.timeout(TIMEOUT):
                return await connection.ask(data)
        except TimeoutError:
            connection.drop()
            self.ledger.close(kind, name, HANG, f"nothing for {TIMEOUT:g} seconds")
        except Lost as error:
            self.ledger.close(kind, name, LOST, str(error))
        return None

    # Other clients.

    async def _disconnects(self, stage: Disconnect, key: str, rng: random.Random) -> None:
        kind = f"disconnects {stage.__name__.replace('_', ' ')}"
        while not self.stopping.is_set():
            name = self.ledger.open(kind)
            request = random_request(rng, OPENAI, size=rng.randrange(20, 120))
            data = message(OPENAI.path, OPENAI.body(request), key, name)
            try:
                async with asyncio.timeout(TIMEOUT), Connection(self.url) as connection:
                    await stage(connection, data, rng)
            except TimeoutError:
                self.ledger.close(kind, name, HANG, "before the client could disconnect")
            except (OSError, EOFError) as error:
                self.ledger.close(
                    kind, name, LOST, f"before the client could disconnect: {error!r}"
                )
            else:
                self.ledger.close(kind, name, LEFT)
            await self._pause(rng, 0.6)

    async def _sends_invalid(self, key: str, rng: random.Random) -> None:
        while not self.stopping.is_set():
            invalid = rng.choice(INVALID_REQUESTS)
            name = self.ledger.open("invalid")
            async with Connection(self.url) as connection:
                answer = await self._answer_to_invalid(
                    connection, invalid, invalid.data(rng, key, name), name
                )
            if answer is not None:
                expected = answer.status in invalid.statuses
                outcome = REFUSED if expected else UNDOCUMENTED
                reason = f"{answer.status}" if expected else f"{invalid.name}: {answer!r:.300}"
                self.ledger.close("invalid", name, outcome, reason)
            await self._pause(rng)

    async def _answer_to_invalid(
        self, connection: Connection, invalid: InvalidInput, data: bytes, name: str
    ) -> HttpAnswer | None:
        try:
            async with asyncio.timeout(TIMEOUT):
                return await connection.ask(data)
        except TimeoutError:
            self.ledger.close("invalid", name, HANG, invalid.name)
        except Lost as error:
            self.ledger.close("invalid", name, LOST, f"{invalid.name}: {error}")
        return None

    async def _sends_too_many_documents(self, key: str, rng: random.Random) -> None:
        async with Connection(self.url) as connection:
            while not self.stopping.is_set():
                request = random_request(rng, OPENAI, size=MAX_DOCUMENTS + 1)
                await self._expect_status(
                    connection, OPENAI.body(request), key, "too many documents", 413
                )
                await self._pause(rng, 2)

    async def _has_wrong_key(self, rng: random.Random) -> None:
        async with Connection(self.url) as connection:
            while not self.stopping.is_set():
                api = rng.choice(API_FORMATS)
                request = random_request(rng, api)
                key = rng.choice((None, "", "key-", "wrong", "key-0x"))
                await self._expect_status(
                    connection, api.body(request), key, "wrong key", 401, api.path
                )
                await self._pause(rng, 1)

    async def _expect_status(
        self,
        connection: Connection,
        body: Any,
        key: str | None,
        kind: str,
        status: int,
        path: str = OPENAI.path,
    ) -> None:
        name = self.ledger.open(kind)
        answer = await self._answer(connection, message(path, body, key, name), kind, name)
        self._close_refusal(kind, name, status, answer)

    def _close_refusal(self, kind: str, name: str, status: int, answer: HttpAnswer | None) -> None:
        if answer is not None:
            expected = answer.status == status
            outcome = REFUSED if expected else UNDOCUMENTED
            reason = f"{answer.status}" if expected else f"{answer!r:.300}"
            self.ledger.close(kind, name, outcome, reason)

    async def _probes(self) -> None:
        """/livez must always be 200; /readyz may be 503."""
        while not self.stopping.is_set():
            await self._probe("/livez", 200)
            await self._probe("/readyz", 200, 503)
            await self._probe("/metrics", 200)
            await asyncio.sleep(0.5)

    async def _probe(self, path: str, *statuses: int) -> None:
        kind = f"probe of {path}"
        name = self.ledger.open(kind)
        try:
            async with asyncio.timeout(TIMEOUT):
                answer = await get(self.url, path)
        except TimeoutError:
            self.ledger.close(kind, name, HANG)
        except (Lost, OSError) as error:
            self.ledger.close(kind, name, LOST, repr(error))
        else:
            outcome = ANSWERED if answer.status in statuses else UNDOCUMENTED
            self.ledger.close(kind, name, outcome, str(answer.status))


def random_request(
    rng: random.Random,
    api: ApiFormat,
    *,
    size: int | None = None,
    extras: dict[str, Any] | None = None,
) -> ChaosRequest:
    """Any valid request; it may contain a document twice."""
    if size is None:
        size = rng.randrange(30, 150) if rng.random() < 0.08 else rng.randrange(1, 9)
    queries = [rng.randrange(len(INSTRUCTED_QUERIES))]
    if api.has_many_queries:
        # Queries in one request cannot have instructions; those without one have even indices.
        queries = rng.sample(range(0, len(INSTRUCTED_QUERIES), 2), rng.randrange(1, 4))
    pairs = [(query, rng.randrange(len(DOCUMENTS))) for query in queries for _ in range(size)]
    fields: dict[str, Any] = {}
    if rng.random() < 0.5:
        fields["cache"] = rng.random() < 0.4
    if rng.random() < 0.3:
        fields["priority"] = rng.choice((0, 3, 999))
    if rng.random() < 0.2:
        fields["user"] = rng.choice("abc")
    return ChaosRequest(
        pairs=tuple(pairs[:MAX_DOCUMENTS] if api.has_many_queries else pairs),
        top=rng.choice((None, 1, 3)) if api.has_top else None,
        logits=rng.random() < 0.5,
        extras=fields | (extras or {}),
    )


# When to disconnect.

Disconnect = Callable[[Connection, bytes, random.Random], Coroutine[Any, Any, None]]


async def in_body(connection: Connection, data: bytes, rng: random.Random) -> None:
    await connection.send(data[: rng.randrange(10, len(data))])
    await asyncio.sleep(rng.uniform(0, 0.3))


async def while_waiting(connection: Connection, data: bytes, rng: random.Random) -> None:
    await connection.send(data)
    await asyncio.sleep(rng.uniform(0, 1.5))


async def in_answer(connection: Connection, data: bytes, rng: random.Random) -> None:
    await connection.send(data)
    # Every answer is longer, also an error.
    await connection.read_some(rng.randrange(1, 100))
