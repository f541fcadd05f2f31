"""Admission: whole or not at all, given back whatever happens, with a Retry-After that is true."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from rankd.config.settings import Settings
from rankd.errors import TooLarge, TooManyRequests
from rankd.ranking.admission import Admission, Ticket
from rankd.ranking.scheduler import Scheduler
from rankd.server.app import open_app
from rankd.types import Prompt, RankRequest


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def _retry_after(act: Callable[[], object]) -> int | None:
    with pytest.raises(TooManyRequests) as refusal:
        act()
    return refusal.value.retry_after


@settings(deadline=None)
@given(
    requests=st.integers(0, 4),
    tokens=st.integers(0, 100),
    steps=st.lists(
        st.tuples(st.sampled_from(["come", "done", "leave"]), st.integers(1, 150)), max_size=60
    ),
)
def test_limits_are_never_passed_and_everything_is_given_back(
    requests: int, tokens: int, steps: list[tuple[str, int]]
) -> None:
    admission = Admission(max_waiting_requests=requests, max_waiting_tokens=tokens)
    inside: list[tuple[ExitStack, Ticket]] = []
    for step, number in steps:
        if step == "come":
            with ExitStack() as stack:
                before = admission.tokens
                try:
                    ticket = stack.enter_context(admission.enter())
                    ticket.admit(number)
                except TooManyRequests:
                    assert admission.tokens == before
                    continue
                inside.append((stack.pop_all(), ticket))
        elif inside:
            stack, ticket = inside.pop(number % len(inside))
            if step == "done":
                ticket.done()
            stack.close()

        assert admission.requests == len(inside)
        assert admission.tokens == sum(ticket.tokens for _, ticket in inside)
        assert not requests or admission.requests <= requests
        # One that is larger than the limit by itself is there alone.
        assert not tokens or admission.tokens <= tokens or len(inside) == 1
    for stack, _ in inside:
        stack.close()

    assert (admission.requests, admission.tokens) == (0, 0)


def test_what_can_never_fit_is_refused_with_the_numbers() -> None:
    admission = Admission(max_request_tokens=1_000)

    with admission.enter() as ticket, pytest.raises(TooLarge, match=r"1,001 .*limit is 1,000"):
        ticket.admit(1_001)
    with admission.enter() as ticket:
        ticket.admit(1_000)


def test_what_is_surely_too_large_does_not_even_enter() -> None:
    admission = Admission(max_request_tokens=1_000)

    with pytest.raises(TooLarge), admission.enter(fewest=1_001):
        pass
    assert admission.requests == 0


def test_a_request_above_the_limit_waits_until_nothing_else_does() -> None:
    admission = Admission(max_waiting_tokens=100)
    with admission.enter() as small, admission.enter() as large:
        small.admit(1)
        with pytest.raises(TooManyRequests, match="1 tokens wait already"):
            large.admit(500)
        small.done()
        large.admit(500)

        assert admission.tokens == 500


def test_what_came_too_late_is_given_back_and_is_no_sign_of_speed() -> None:
    clock = Clock()
    admission = Admission(clock=clock)
    with admission.enter() as ticket:
        ticket.admit(100)
        clock.now += 1
        ticket.done(unscored=40)

        assert admission.tokens == 40
    assert admission.tokens == 0
    assert admission.seconds_for(600) == 10


def test_retry_after_is_the_work_that_must_drain_at_the_measured_rate() -> None:
    clock = Clock()
    admission = Admission(max_waiting_tokens=1_000, clock=clock)
    with admission.enter() as first, admission.enter() as second, admission.enter() as third:
        first.admit(100)
        second.admit(900)
        clock.now += 1
        first.done()

        # 100 tokens a second, and of the 900 that wait as many must go as are asked for
        # beyond the 100 that are free.
        assert _retry_after(lambda: third.admit(300)) == 2
        assert _retry_after(lambda: third.admit(700)) == 6


def test_retry_after_falls_as_work_drains_and_then_the_request_fits() -> None:
    clock = Clock()
    admission = Admission(max_waiting_tokens=1_000, clock=clock)
    with ExitStack() as stack:
        tickets = [stack.enter_context(admission.enter()) for _ in range(11)]
        *waiting, late = tickets
        for ticket in waiting:
            ticket.admit(100)
        seconds = []
        for ticket in waiting:
            clock.now += 2
            ticket.done()
            if admission.tokens:
                seconds.append(_retry_after(lambda: late.admit(1_000)))

        assert seconds == [18, 16, 14, 12, 10, 8, 6, 4, 2]
        late.admit(1_000)


def _at_a_hundred_tokens_a_second(**limits: int) -> Admission:
    clock = Clock()
    admission = Admission(clock=clock, **limits)
    with admission.enter() as ticket:
        ticket.admit(100)
        clock.now += 1
        ticket.done()
    return admission


def test_a_request_above_the_limit_comes_again_when_all_that_waits_has_drained() -> None:
    admission = _at_a_hundred_tokens_a_second(max_waiting_tokens=1_000)
    with admission.enter() as first, admission.enter() as large:
        first.admit(300)

        assert _retry_after(lambda: large.admit(5_000)) == 3


def test_beyond_the_number_of_requests_one_of_mean_size_must_end() -> None:
    admission = _at_a_hundred_tokens_a_second(max_waiting_requests=2)
    with admission.enter() as first, admission.enter() as second:
        first.admit(300)
        second.admit(500)

        assert _retry_after(lambda: admission.enter().__enter__()) == 4


def test_what_is_known_whole_passes_even_a_queue_that_is_over_full() -> None:
    admission = Admission(max_waiting_tokens=1_000)
    with admission.enter() as large, admission.enter(0) as known:
        large.admit(5_000)
        known.admit(0)

        assert admission.tokens == 5_000


def test_before_anything_was_measured_it_is_as_long_again_as_it_took_so_far() -> None:
    clock = Clock()
    admission = Admission(max_waiting_tokens=100, clock=clock)
    with admission.enter() as first, admission.enter() as second:
        first.admit(100)
        assert _retry_after(lambda: second.admit(1)) == 1
        clock.now += 7
        assert _retry_after(lambda: second.admit(1)) == 7
        clock.now += 5_000
        assert _retry_after(lambda: second.admit(1)) == 60


def test_an_idle_night_does_not_make_the_server_slow() -> None:
    clock = Clock()
    admission = Admission(max_waiting_tokens=1_000, clock=clock)
    with admission.enter() as first:
        first.admit(1_000)
        clock.now += 1
        first.done()
    clock.now += 40_000
    with admission.enter() as first, admission.enter() as second:
        first.admit(1_000)

        assert _retry_after(lambda: second.admit(500)) == 1


def test_old_work_does_not_count_for_the_rate() -> None:
    clock = Clock()
    admission = Admission(max_waiting_tokens=1_000, clock=clock)
    for tokens, seconds in [(1_000, 1.0), *[(100, 10.0)] * 4]:
        with admission.enter() as ticket:
            ticket.admit(tokens)
            clock.now += seconds
            ticket.done()
    with admission.enter() as first, admission.enter() as second:
        first.admit(1_000)

        assert _retry_after(lambda: second.admit(200)) == 20  # At 10 a second.


def test_requests_that_take_longer_than_the_window_are_not_taken_for_fast_ones() -> None:
    clock = Clock()
    admission = Admission(clock=clock)
    for _ in range(3):
        with admission.enter() as ticket:
            ticket.admit(6_000)
            clock.now += 600
            ticket.done()

        # Ten tokens a second, and not what 6,000 in half a minute would be.
        assert admission.seconds_for(300) == 30


def test_many_small_requests_are_not_remembered_one_by_one() -> None:
    clock = Clock()
    admission = Admission(clock=clock)
    for _ in range(20_000):
        with admission.enter() as ticket:
            ticket.admit(10)
            clock.now += 0.001
            ticket.done()

    assert len(admission._drain._finished) <= 310
    assert 9_000 < admission._drain.rate() < 11_000


def test_what_was_given_up_is_no_sign_of_speed() -> None:
    clock = Clock()
    admission = Admission(max_waiting_tokens=1_000, clock=clock)
    with admission.enter() as first, admission.enter() as second, admission.enter() as third:
        first.admit(100)
        second.admit(900)
        clock.now += 1
        first.done()
        second.leave()
        second.admit(1_000)

        assert _retry_after(lambda: third.admit(500)) == 5


# Through the app: a slow engine, small limits.


class SlowScheduler(Scheduler):
    """Scores when it is told to, and remembers what it was given."""

    def __init__(self, inner: Scheduler) -> None:
        super().__init__(inner.engine)
        self.go = asyncio.Event()
        self.calls: list[int] = []
        self.callers: list[str] = []

    async def score(self, prompts: Sequence[Prompt], **options: Any) -> list[float]:
        self.calls.append(len(prompts))
        self.callers.append(f"{options['key']}/{options['user']}")
        await self.go.wait()
        return await super().score(prompts, **options)


class Served:
    def __init__(self, app: FastAPI, http: httpx.AsyncClient, engine: SlowScheduler) -> None:
        self.admission: Admission = app.state.service.ranker.admission
        self.encoder = app.state.service.ranker.encoder
        self.http, self.engine = http, engine

    def post(self, *documents: str) -> asyncio.Task[httpx.Response]:
        body = {"query": "q", "documents": documents}
        return asyncio.create_task(self.http.post("/v1/rerank", json=body))

    async def until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not happened():  # noqa: ASYNC110  (what happens is in the product)
                await asyncio.sleep(0.005)

    async def metric(self, name: str) -> float:
        text = (await self.http.get("/metrics")).text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


@asynccontextmanager
async def served(**limits: Any) -> AsyncIterator[Served]:
    # Without a cache, unless asked for: none shall answer what is to wait.
    settings = Settings.model_validate(
        {"engine": "fake", "access_log": False, "cache_mb": 0, **limits}
    )
    async with open_app(settings) as app:
        engine = SlowScheduler(app.state.service.ranker.scheduler)
        app.state.service.ranker.scheduler = engine
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://rankd") as http:
            yield Served(app, http, engine)


async def _too_many_requests() -> None:
    async with served(max_waiting_requests=2) as server:
        before = await server.metric('rankd_refused_total{reason="waiting_requests"}')
        taken = [server.post("a"), server.post("b")]
        await server.until(lambda: len(server.engine.calls) == 2)
        assert await server.metric("rankd_waiting_requests") == 2
        assert await server.metric("rankd_waiting_tokens") == server.admission.tokens > 0

        refused = await server.post("c")

        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "overloaded"
        assert "2 requests wait already; the limit is 2" in refused.json()["error"]["message"]
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert await server.metric('rankd_refused_total{reason="waiting_requests"}') == before + 1
        server.engine.go.set()
        assert [reply.status_code for reply in await asyncio.gather(*taken)] == [200, 200]
        assert (await server.post("c")).status_code == 200
        assert (server.admission.requests, server.admission.tokens) == (0, 0)
        assert await server.metric("rankd_drain_tokens_per_second") > 0


def test_more_requests_than_may_wait_are_refused_and_later_answered() -> None:
    asyncio.run(_too_many_requests())


async def _never_half() -> None:
    async with served(max_waiting_tokens=400) as server:
        first = server.post("one")
        await server.until(lambda: server.engine.calls == [1])
        price = server.admission.tokens
        documents = [f"another document {number}" for number in range(400 // price + 1)]

        refused = await server.post(*documents)

        assert refused.status_code == 429
        assert server.engine.calls == [1]
        assert server.admission.tokens == price
        # Equal documents are one pair, so as many of them fit.
        second = server.post(*["the same"] * 20)
        await server.until(lambda: server.engine.calls == [1, 1])
        server.engine.go.set()
        assert (await first).status_code == (await second).status_code == 200
        assert (await server.post(*documents)).status_code == 200  # Now it is alone.


def test_a_request_is_never_half_admitted() -> None:
    asyncio.run(_never_half())


async def _client_gone() -> None:
    async with served(max_waiting_requests=1) as server:
        gone = server.post("a")
        await server.until(lambda: server.engine.calls == [1])
        assert (await server.post("b")).status_code == 429

        gone.cancel()
        await server.until(lambda: gone.done())

        assert (server.admission.requests, server.admission.tokens) == (0, 0)
        server.engine.go.set()
        assert (await server.post("b")).status_code == 200


def test_who_leaves_gives_back_the_share_at_once() -> None:
    asyncio.run(_client_gone())


async def _refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(max_waiting_tokens=300, max_request_tokens=2_000) as server:
        held = server.post("a", "b", "c")
        await server.until(lambda: bool(server.engine.calls))
        encoded: list[Sequence[RankRequest]] = []
        encode = server.encoder.encode

        async def noting(asks: Sequence[RankRequest]) -> object:
            encoded.append(asks)
            return await encode(asks)

        monkeypatch.setattr(server.encoder, "encode", noting)

        full = await server.post(*map(str, range(10)))
        large = await server.post(*[f"{number} " * 50 for number in range(100)])

        assert (full.status_code, large.status_code) == (429, 413)
        assert "retry-after" not in large.headers
        assert not encoded
        server.engine.go.set()
        await held


def test_what_is_surely_too_much_is_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(_refused_unread(monkeypatch))


async def _known() -> None:
    async with served(cache_mb=1, max_waiting_tokens=300, max_request_tokens=1_000) as server:
        server.engine.go.set()
        assert (await server.post("a", "b")).status_code == 200
        server.engine.go.clear()
        held = server.post("c", "d", "e")
        await server.until(lambda: len(server.engine.calls) == 2)
        waiting = server.admission.tokens

        known = await server.post("a", "b")
        half_known = await server.post("a", "b", "f", "g")

        assert known.headers["x-rankd-cached"] == "2"
        assert half_known.status_code == 429
        # Only what is not known has a price.
        price = half_known.json()["error"]["message"].split("this request has ")[1].split()[0]
        assert int(price) < waiting
        assert server.admission.tokens == waiting
        server.engine.go.set()
        await held


def test_what_is_in_the_cache_needs_no_room() -> None:
    asyncio.run(_known())


async def _crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(cache_mb=1, max_waiting_tokens=1_000) as server:
        held = server.post(*map(str, range(12)))
        await server.until(lambda: bool(server.engine.calls))
        encoded: list[str] = []
        encode = server.encoder.encode

        async def noting(asks: Sequence[RankRequest]) -> object:
            encoded.extend(document for ask in asks for document in ask.documents)
            return await encode(asks)

        monkeypatch.setattr(server.encoder, "encode", noting)
        before = await server.metric('rankd_refused_total{reason="waiting_tokens"}')

        refused = await server.post(*[f"{number} and " * 300 for number in range(20)], "short")

        assert refused.status_code == 429
        assert "by their length" in refused.json()["error"]["message"]
        assert encoded == ["short"]
        assert await server.metric('rankd_refused_total{reason="waiting_tokens"}') == before + 1
        assert server.admission.requests == 1
        server.engine.go.set()
        await held


def test_what_will_hardly_fit_is_not_encoded_although_the_cache_might_know_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asyncio.run(_crowded(monkeypatch))


async def _crowded_by_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(cache_mb=1, max_waiting_tokens=10_000) as server:
        held = server.post("c", "d", "e")
        await server.until(lambda: bool(server.engine.calls))
        encoded: list[RankRequest] = []
        encode = server.encoder.encode

        async def noting(asks: Sequence[RankRequest]) -> object:
            encoded.extend(asks)
            return await encode(asks)

        monkeypatch.setattr(server.encoder, "encode", noting)
        body = {"query": "q", "truncation": "chunk", "documents": ["some words " * 20_000]}
        long = {**body, "documents": ["some words " * 2_000_000]}

        replies = [await server.http.post("/v1/rerank", json=one) for one in (body, long)]

        # One piece of either would have fitted. Of the long one not even a look is worth it.
        assert [reply.status_code for reply in replies] == [429, 429]
        assert ["by their length" in reply.text for reply in replies] == [True, True]
        assert [len(ask.documents[0]) for ask in encoded] == [len(body["documents"][0])]
        server.engine.go.set()
        await held


def test_chunks_that_will_hardly_fit_are_not_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(_crowded_by_chunks(monkeypatch))


async def _crowded_by_long() -> None:
    async with served(cache_mb=1, max_waiting_tokens=300) as server:
        held = server.post("c", "d", "e")
        await server.until(lambda: bool(server.engine.calls))
        documents = [f"{number} word " * 5_000 for number in range(3)]
        body = {"query": "q", "documents": documents, "truncation": False}

        refused = await server.http.post("/jina/v1/rerank", json=body)
        server.engine.go.set()
        await held
        wrong = await server.http.post("/jina/v1/rerank", json=body)

        # Not before there is room for it does anyone look whether it must not be cut.
        assert (refused.status_code, wrong.status_code) == (429, 400)


def test_what_must_not_be_cut_is_refused_by_the_places_of_all_its_documents() -> None:
    asyncio.run(_crowded_by_long())


async def _callers() -> None:
    async with served(api_keys=("ann", "bob")) as server:
        server.engine.go.set()

        async def ask(key: str, **more: object) -> None:
            body = {"query": "q", "documents": ["d"], **more}
            await server.http.post("/v1/rerank", json=body, headers={"api-key": key})

        await ask("ann")
        await ask("ann", user="eve")
        await ask("bob")
        await ask("bob", user=5)
        await ask("bob")

    ann, eve, *bobs = server.engine.callers
    assert len({ann, eve, *bobs}) == 3
    assert eve == f"{ann}eve"
    assert len(set(bobs)) == 1
    assert not any("ann" in caller or "bob" in caller for caller in server.engine.callers)


def test_the_engine_knows_callers_apart_but_not_their_keys() -> None:
    asyncio.run(_callers())
