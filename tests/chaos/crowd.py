"""Clients of all kinds at once; each is a task with dice of its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from corpus import DOCUMENTS, QUESTIONS, Calm, Wanted
from garbage import GARBAGE, Garbage
from judge import ANSWERED, HANG, LEFT, LOST, REFUSED, UNDOCUMENTED, judge
from ledger import Ledger
from lines import OPERATOR_KEY, Answer, Line, Lost, get, message
from tongues import OPENAI, TONGUES, Tongue

# Seconds without an answer that make a hang. Nothing is fast here: two cores may be busy with
# something else, and after each death what was in flight runs again, one by one.
PATIENCE = 180.0

# Whose requests a minute are not enough for what is done with it; others' should be.
GREEDY_KEY = "the-greedy-one"
KEY_REQUESTS_PER_MINUTE = 120

# Of those who ask before and after.
CALM_KEY, REDIS_KEY, CACHE_KEY = "before-and-after", "of-redis", "of-the-cache"


MAX_DOCUMENTS = 200

KEYS = (
    *(f"key-{number}" for number in range(2 * len(TONGUES) + 9)),
    *(GREEDY_KEY, CALM_KEY, REDIS_KEY, CACHE_KEY, OPERATOR_KEY),
)


IN_ONE_GO, IN_A_HURRY, GREEDY = "openai, two in one go", "openai, in a hurry", "openai, greedy"
PATIENT = (*(tongue.name for tongue in TONGUES), IN_ONE_GO)
WELL_FORMED = (*PATIENT, IN_A_HURRY, GREEDY)


@dataclass
class Crowd:
    """What all clients share.

    Attributes:
        late: no client begins another request.
    """

    url: str
    calm: Calm
    ledger: Ledger
    seed: str
    late: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, trouble: Coroutine[Any, Any, None], seconds: float) -> None:
        """All clients, for so long and until the trouble is over."""
        clients = [asyncio.create_task(client) for client in self._clients()]
        waiting = asyncio.create_task(asyncio.sleep(seconds))
        try:
            await asyncio.gather(trouble, waiting)
        finally:
            self.late.set()
            await asyncio.gather(*clients)

    def _clients(self) -> list[Coroutine[Any, Any, None]]:
        keys = iter(KEYS)

        def dice() -> random.Random:
            return random.Random(f"{self.seed}/{next(numbers)}")

        numbers = iter(range(10_000))
        asking = [
            self._asks(tongue, next(keys), dice(), kept=kept)
            for tongue in TONGUES
            for kept in (True, False)
        ]
        leaving = [
            self._leaves(leave, next(keys), dice()) for leave in (mid_body, mid_wait, mid_answer)
        ]
        return [
            *asking,
            *leaving,
            self._asks_in_one_go(next(keys), dice()),
            self._is_in_a_hurry(next(keys), dice()),
            self._is_in_a_hurry(next(keys), dice()),
            *(self._is_greedy(dice()) for _ in range(6)),
            self._asks_too_much(next(keys), dice()),
            self._has_no_key(dice()),
            self._talks_garbage(next(keys), dice()),
            self._talks_garbage(next(keys), dice()),
            self._probes(),
        ]

    async def _pause(self, dice: random.Random, longest: float = 0.4) -> None:
        await asyncio.sleep(dice.uniform(0, longest))

    # Who asks as one should.

    async def _asks(self, tongue: Tongue, key: str, dice: random.Random, *, kept: bool) -> None:
        async with Line(self.url) as line:
            while not self.late.is_set():
                await self._ask(line, tongue, wanted(dice, tongue), key, tongue.name)
                if not kept:
                    line.drop()
                await self._pause(dice)

    async def _is_in_a_hurry(self, key: str, dice: random.Random) -> None:
        async with Line(self.url) as line:
            while not self.late.is_set():
                extras = {"timeout_ms": dice.choice((20, 150, 800, 4000))}
                if dice.random() < 0.6:
                    extras |= {"partial": True, "cache": dice.random() < 0.5}
                ask = wanted(dice, OPENAI, size=dice.randrange(5, 100), extras=extras)
                await self._ask(line, OPENAI, ask, key, IN_A_HURRY)
                await self._pause(dice)

    async def _is_greedy(self, dice: random.Random) -> None:
        """More a minute than its key may."""
        async with Line(self.url) as line:
            while not self.late.is_set():
                ask = wanted(dice, OPENAI, size=2)
                await self._ask(line, OPENAI, ask, GREEDY_KEY, GREEDY)

    async def _asks_in_one_go(self, key: str, dice: random.Random) -> None:
        """Two requests in one piece, of which the answers come one behind the other."""
        kind = IN_ONE_GO
        async with Line(self.url) as line:
            while not self.late.is_set():
                asks = [wanted(dice, OPENAI), wanted(dice, OPENAI)]
                names = [self.ledger.open(kind) for _ in asks]
                data = b"".join(
                    message(OPENAI.path, OPENAI.body(ask), key, name)
                    for ask, name in zip(asks, names, strict=True)
                )
                for ask, name in zip(asks, names, strict=True):
                    answer = await self._answer(line, data, kind, name)
                    await self._note(answer, OPENAI, ask, kind, name)
                    data = b""
                await self._pause(dice)

    async def _ask(self, line: Line, tongue: Tongue, ask: Wanted, key: str, kind: str) -> None:
        name = self.ledger.open(kind)
        data = message(tongue.path, tongue.body(ask), key, name)
        answer = await self._answer(line, data, kind, name)
        await self._note(answer, tongue, ask, kind, name)

    async def _note(
        self, answer: Answer | None, tongue: Tongue, ask: Wanted, kind: str, name: str
    ) -> None:
        if answer is None:
            return
        if answer.headers.get("x-request-id") != name:
            self.ledger.close(kind, name, UNDOCUMENTED, "the answer is another request's")
            return
        ending, why = judge(tongue, ask, answer, self.calm)
        self.ledger.close(kind, name, ending, why)
        if answer.status in (429, 503):
            await asyncio.sleep(0.5)

    async def _answer(self, line: Line, data: bytes, kind: str, name: str) -> Answer | None:
        try:
            async with asyncio.timeout(PATIENCE):
                return await line.ask(data)
        except TimeoutError:
            line.drop()
            self.ledger.close(kind, name, HANG, f"nothing for {PATIENCE:g} seconds")
        except Lost as problem:
            self.ledger.close(kind, name, LOST, str(problem))
        return None

    # Who does not.

    async def _leaves(self, leave: Leave, key: str, dice: random.Random) -> None:
        kind = f"leaves {leave.__name__.replace('_', ' ')}"
        while not self.late.is_set():
            name = self.ledger.open(kind)
            ask = wanted(dice, OPENAI, size=dice.randrange(20, 120))
            data = message(OPENAI.path, OPENAI.body(ask), key, name)
            try:
                async with asyncio.timeout(PATIENCE), Line(self.url) as line:
                    await leave(line, data, dice)
            except TimeoutError:
                self.ledger.close(kind, name, HANG, "before it could leave")
            except (OSError, EOFError) as problem:
                self.ledger.close(kind, name, LOST, f"before it could leave: {problem!r}")
            else:
                self.ledger.close(kind, name, LEFT)
            await self._pause(dice, 0.6)

    async def _talks_garbage(self, key: str, dice: random.Random) -> None:
        while not self.late.is_set():
            garbage = dice.choice(GARBAGE)
            name = self.ledger.open("garbage")
            async with Line(self.url) as line:
                answer = await self._of_garbage(line, garbage, garbage.data(dice, key, name), name)
            if answer is not None:
                known = answer.status in garbage.statuses
                ending = REFUSED if known else UNDOCUMENTED
                shown = f"{answer.status}" if known else f"{garbage.what}: {answer!r:.300}"
                self.ledger.close("garbage", name, ending, shown)
            await self._pause(dice)

    async def _of_garbage(
        self, line: Line, garbage: Garbage, data: bytes, name: str
    ) -> Answer | None:
        try:
            async with asyncio.timeout(PATIENCE):
                return await line.ask(data)
        except TimeoutError:
            self.ledger.close("garbage", name, HANG, garbage.what)
        except Lost as problem:
            # Half a body that never comes: the end of the connection is an answer, too.
            ending = REFUSED if garbage.may_be_cut_off else LOST
            why = "cut off" if garbage.may_be_cut_off else f"{garbage.what}: {problem}"
            self.ledger.close("garbage", name, ending, why)
        return None

    async def _asks_too_much(self, key: str, dice: random.Random) -> None:
        async with Line(self.url) as line:
            while not self.late.is_set():
                ask = wanted(dice, OPENAI, size=MAX_DOCUMENTS + 1)
                await self._is_refused(line, OPENAI.body(ask), key, "too much", 413)
                await self._pause(dice, 2)

    async def _has_no_key(self, dice: random.Random) -> None:
        async with Line(self.url) as line:
            while not self.late.is_set():
                tongue = dice.choice(TONGUES)
                ask = wanted(dice, tongue)
                key = dice.choice((None, "", "key-", "wrong", "key-0x"))
                await self._is_refused(line, tongue.body(ask), key, "wrong key", 401, tongue.path)
                await self._pause(dice, 1)

    async def _is_refused(
        self,
        line: Line,
        body: Any,
        key: str | None,
        kind: str,
        status: int,
        path: str = OPENAI.path,
    ) -> None:
        name = self.ledger.open(kind)
        answer = await self._answer(line, message(path, body, key, name), kind, name)
        if answer is not None:
            known = answer.status == status
            ending = REFUSED if known else UNDOCUMENTED
            shown = f"{answer.status}" if known else f"{answer!r:.300}"
            self.ledger.close(kind, name, ending, shown)

    async def _probes(self) -> None:
        """Alive all the time, ready or not."""
        while not self.late.is_set():
            await self._probe("/livez", 200)
            await self._probe("/readyz", 200, 503)
            await self._probe("/metrics", 200)
            await asyncio.sleep(0.5)

    async def _probe(self, path: str, *statuses: int) -> None:
        kind = f"probe of {path}"
        name = self.ledger.open(kind)
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await get(self.url, path)
        except TimeoutError:
            self.ledger.close(kind, name, HANG)
        except (Lost, OSError) as problem:
            self.ledger.close(kind, name, LOST, repr(problem))
        else:
            ending = ANSWERED if answer.status in statuses else UNDOCUMENTED
            self.ledger.close(kind, name, ending, str(answer.status))


def wanted(
    dice: random.Random,
    tongue: Tongue,
    *,
    size: int | None = None,
    extras: dict[str, Any] | None = None,
) -> Wanted:
    """Any well-formed request; documents may stand in it twice."""
    if size is None:
        size = dice.randrange(30, 150) if dice.random() < 0.08 else dice.randrange(1, 9)
    asked = [dice.randrange(len(QUESTIONS))]
    if tongue.many:
        # Its questions have no instruction each; these are the even ones.
        asked = dice.sample(range(0, len(QUESTIONS), 2), dice.randrange(1, 4))
    pairs = [(one, dice.randrange(len(DOCUMENTS))) for one in asked for _ in range(size)]
    chosen: dict[str, Any] = {}
    if dice.random() < 0.5:
        chosen["cache"] = dice.random() < 0.4
    if dice.random() < 0.3:
        chosen["priority"] = dice.choice((0, 3, 999))
    if dice.random() < 0.2:
        chosen["user"] = dice.choice("abc")
    return Wanted(
        pairs=tuple(pairs[:MAX_DOCUMENTS] if tongue.many else pairs),
        top=dice.choice((None, 1, 3)) if tongue.tops else None,
        logits=dice.random() < 0.5,
        extras=chosen | (extras or {}),
    )


# Ways to leave.

Leave = Callable[[Line, bytes, random.Random], Coroutine[Any, Any, None]]


async def mid_body(line: Line, data: bytes, dice: random.Random) -> None:
    await line.send(data[: dice.randrange(10, len(data))])
    await asyncio.sleep(dice.uniform(0, 0.3))


async def mid_wait(line: Line, data: bytes, dice: random.Random) -> None:
    await line.send(data)
    await asyncio.sleep(dice.uniform(0, 1.5))


async def mid_answer(line: Line, data: bytes, dice: random.Random) -> None:
    await line.send(data)
    # Any answer is longer than that, a refusal, too.
    await line.read_some(dice.randrange(1, 100))
