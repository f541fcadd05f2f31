"""An ask becomes prompts: the head once, the documents in one batch, the cut in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import orjson

from rankd.checkpoint import Checkpoint
from rankd.errors import BadModel, InvalidRequest
from rankd.prompts import qwen3
from rankd.prompts.tokenizer import Tokenizer
from rankd.types import Answers, Ask, Prompt

# Characters below which a request is encoded where it stands: that takes less than a
# tenth of a millisecond, and a thread's round trip more.
_SMALL = 2_000


@dataclass(frozen=True, slots=True)
class Encoded:
    """The prompts of one ask.

    Attributes:
        prompts: one for each piece of each document, in order, all with the same head
            object. A document that fits is one piece.
        pieces: how many prompts each document has.
        document_tokens: length of each whole document, before any cut.
        kept_tokens: length of what is left of it in its prompts, each token once.
    """

    prompts: tuple[Prompt, ...]
    pieces: tuple[int, ...]
    document_tokens: tuple[int, ...]
    kept_tokens: tuple[int, ...]


class PromptEncoder:
    """Puts pairs into Qwen3's template, as token ids.

    Attributes:
        answers: ids of "yes" and "no" in this checkpoint's vocabulary.
        max_tokens: the longest prompt it makes; documents are cut to fit.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_tokens: int,
        instruction: str,
        max_instruction_tokens: int,
        executor: Executor | None = None,
    ) -> None:
        self.answers = Answers(tokenizer.single(qwen3.YES), tokenizer.single(qwen3.NO))
        self.max_tokens = max_tokens
        self._plain = tokenizer.plain
        self._prefix = tuple(tokenizer.encode_template(qwen3.PREFIX))
        self._suffix = tuple(tokenizer.encode_template(qwen3.SUFFIX))
        self._instruction = instruction
        self._max_instruction_tokens = max_instruction_tokens
        self._executor = executor

    async def encode(self, asks: Sequence[Ask]) -> list[Encoded]:
        """Encode every ask off the event loop; see `encode_now`."""
        if sum(map(_characters, asks)) < _SMALL:
            return [self.encode_now(ask) for ask in asks]
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._executor, lambda: [self.encode_now(ask) for ask in asks]
        )

    async def tokenize(self, text: str) -> list[int]:
        """The ids of a text by itself; no string in it becomes a control token."""
        if len(text) < _SMALL:
            return self._plain.encode([text])[0]
        loop = asyncio.get_running_loop()
        [ids] = await loop.run_in_executor(self._executor, self._plain.encode, [text])
        return ids

    def spell(self, ids: Sequence[int]) -> list[str]:
        """Each id as text."""
        return self._plain.spell(ids)

    def encode_now(self, ask: Ask) -> Encoded:
        """Make the prompts of one ask; only documents are ever cut.

        Raises:
            InvalidRequest: query and instruction alone leave no room for a document, or
                one does not fit and must not be cut.
        """
        head = self._head(ask)
        room = self.max_tokens - len(head) - len(self._suffix)
        if room < 1:
            raise InvalidRequest(
                f"query and instruction take {len(head) + len(self._suffix):,} tokens with the "
                f"template; the limit is {self.max_tokens:,} with the document",
                param="query",
            )
        limit = room if ask.max_document_tokens is None else min(room, ask.max_document_tokens)
        return self._fit(head, limit, ask)

    def _head(self, ask: Ask) -> tuple[int, ...]:
        if ask.instruction is not None:
            self._refuse_long_instruction(ask.instruction)
        instruction = self._instruction if ask.instruction is None else ask.instruction
        [question] = self._plain.encode([qwen3.question(instruction, ask.query)])
        return (*self._prefix, *question)

    def _refuse_long_instruction(self, instruction: str) -> None:
        [ids] = self._plain.encode([instruction])
        if len(ids) > self._max_instruction_tokens:
            raise InvalidRequest(
                f"the instruction takes {len(ids):,} tokens; "
                f"the limit is {self._max_instruction_tokens:,}",
                param="instruction",
            )

    def _fit(self, head: tuple[int, ...], limit: int, ask: Ask) -> Encoded:
        bodies = self._plain.encode([qwen3.answer(document) for document in ask.documents])
        if ask.truncation == "refuse":
            _refuse_long(bodies, limit)
        cut = [_pieces(body, limit, ask) for body in bodies]
        return Encoded(
            prompts=tuple(
                Prompt(head, (*piece, *self._suffix)) for pieces in cut for piece in pieces
            ),
            pieces=tuple(map(len, cut)),
            document_tokens=tuple(map(len, bodies)),
            kept_tokens=tuple(
                _covered(body, pieces, ask) for body, pieces in zip(bodies, cut, strict=True)
            ),
        )


def _pieces(body: Sequence[int], limit: int, ask: Ask) -> list[Sequence[int]]:
    """What the model reads of a document, in pieces of at most `limit` tokens."""
    if len(body) <= limit:
        return [body]
    if ask.truncation == "start":
        return [body[-limit:]]
    step = max(limit - ask.overlap, 1)
    # No piece begins where the one before already reached the end.
    starts = range(0, max(len(body) - limit, 0) + step, step)[: ask.max_chunks]
    return [body[start : start + limit] for start in starts]


def _covered(body: Sequence[int], pieces: Sequence[Sequence[int]], ask: Ask) -> int:
    if len(pieces) == 1:
        return len(pieces[0])
    step = max(len(pieces[0]) - ask.overlap, 1)
    return min(len(body), step * (len(pieces) - 1) + len(pieces[0]))


def _refuse_long(bodies: Sequence[Sequence[int]], limit: int) -> None:
    long = [
        f"documents[{place}] ({len(body):,})"
        for place, body in enumerate(bodies)
        if len(body) > limit
    ]
    if long:
        shown = ", ".join(long[:10]) + (f" and {len(long) - 10} more" if len(long) > 10 else "")
        raise InvalidRequest(
            f"{len(long)} of {len(bodies)} documents exceed {limit:,} tokens and truncation is "
            f"off: {shown}",
            param="documents",
        )


def _characters(ask: Ask) -> int:
    return len(ask.query) + sum(map(len, ask.documents)) + len(ask.instruction or "")


def open_encoder(
    checkpoint: Checkpoint,
    *,
    max_tokens: int,
    instruction: str,
    max_instruction_tokens: int,
    executor: Executor | None = None,
) -> PromptEncoder:
    """The encoder of a checkpoint's own `tokenizer.json`.

    Raises:
        BadModel: the file cannot be read, or it is not a reranker's tokenizer.
    """
    file = checkpoint.path / "tokenizer.json"
    try:
        tokenizer = Tokenizer(orjson.loads(file.read_bytes()))
    except BadModel:
        raise
    except Exception as problem:  # The library has one class for all that a file can lack.
        raise BadModel(f"{file} is not a usable tokenizer: {problem!r}") from None
    rows = checkpoint.config.get("vocab_size", tokenizer.size)
    if tokenizer.size > rows:
        # Otherwise a rare word in someone's document would bring the engine down.
        raise BadModel(f"{file} has {tokenizer.size:,} tokens; the model has rows for {rows:,}")
    return PromptEncoder(
        tokenizer,
        max_tokens=min(max_tokens, checkpoint.max_tokens),
        instruction=instruction,
        max_instruction_tokens=max_instruction_tokens,
        executor=executor,
    )
