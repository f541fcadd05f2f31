"""The commands that need no server: `rankd check` and `rankd rerank`."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import orjson
from tqdm import tqdm

from rankd import __version__, selfcheck
from rankd.app import open_ranker
from rankd.dialects.wire import parse, rounded
from rankd.errors import BadSettings, InvalidRequest
from rankd.ranker import Ranker
from rankd.settings import Settings
from rankd.types import Ask, Verdict, best_first

# Documents scored between two moves of the progress bar.
_STEP = 64


async def check(settings: Settings) -> int:
    """Print how the known pairs fare; returns 0 when every one is right."""
    async with open_ranker(settings) as (checkpoint, ranker):
        info = ranker.engine.info
        outcomes = await selfcheck.judge(ranker)
    _say(f"model   {checkpoint.name}, revision {info.revision}")
    name = f"{info.name} {info.version}".rstrip()
    _say(f"engine  {name} on {info.device}, {info.dtype}, {info.max_tokens} tokens a pair")
    _say(f"rankd   {__version__}\n")
    _say(selfcheck.table(outcomes))
    complaint = selfcheck.complaint(outcomes)
    _say("\n" + (complaint or "This set-up gives right scores."))
    if info.device == "npu":
        _say("rankd is configuration-tested on Ascend, not run on it: please report these lines.")
    return 1 if complaint else 0


async def rerank(settings: Settings, *, query: str, file: str, top_n: int | None, raw: bool) -> int:
    """Score a file's documents; prints JSON lines, most relevant first.

    Args:
        file: a path, or `-` for standard input; see `_document` for its lines.
        raw: print logits, in nats, instead of scores in [0, 1].

    Raises:
        BadSettings: the query is empty, or the file cannot be read.
    """
    if not query.strip():
        raise BadSettings("--query must not be empty")
    if any("\ud800" <= character <= "\udfff" for character in query):
        raise BadSettings("--query is not UTF-8 text")
    if top_n is not None and top_n < 1:
        raise BadSettings(f"--top-n must be at least 1, not {top_n}")
    documents = list(_documents(file))
    if not documents:
        raise BadSettings(f"{'standard input' if file == '-' else file} holds no documents")
    async with open_ranker(settings) as (_, ranker):
        verdicts = await _rank(ranker, query, [document["text"] for document in documents])
    for verdict in best_first(verdicts)[:top_n]:
        _say(_line(verdict, documents[verdict.index], raw=raw))
    return 0


async def _rank(ranker: Ranker, query: str, texts: Sequence[str]) -> list[Verdict]:
    """All verdicts, in steps, with a bar where a person watches."""
    verdicts: list[Verdict] = []
    with tqdm(total=len(texts), unit="doc", disable=not sys.stderr.isatty()) as bar:
        step = min(_STEP, ranker.max_documents)
        for start in range(0, len(texts), step):
            part = tuple(texts[start : start + step])
            for verdict in await ranker.rank(Ask(query, part)):
                verdicts.append(replace(verdict, index=start + verdict.index))
            bar.update(len(part))
    return verdicts


def _documents(file: str) -> Iterator[dict[str, Any]]:
    """Every line that is not blank."""
    try:
        with _open(file) as stream:
            for number, line in enumerate(stream, 1):
                if line := line.strip().removeprefix("\ufeff"):
                    yield _document(line, f"{file}:{number}")
    except OSError as problem:
        raise BadSettings(f"cannot read {file}: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise BadSettings(f"{file} is not UTF-8 text") from None


def _open(file: str) -> AbstractContextManager[TextIO]:
    if file == "-":
        # Whatever the locale says: it is plain ASCII in most containers.
        return io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8")
    return Path(file).open(encoding="utf-8")


def _document(line: str, place: str) -> dict[str, Any]:
    """A JSON object with `text`, a JSON string, or the line itself."""
    if line[0] not in '{"':
        return {"text": line}
    try:
        value = parse(line.encode())
    except InvalidRequest:
        if line[0] == '"':
            return {"text": line}  # A line that begins with a quotation.
        raise BadSettings(f"{place} begins like a JSON object, but is none") from None
    match value:
        case str(text):
            return {"text": text}
        case {"text": str()}:
            return dict(value)
    raise BadSettings(f"{place}: a JSON object needs its text as a string in `text`")


def _line(verdict: Verdict, document: dict[str, Any], *, raw: bool) -> str:
    """The document's own fields, and what the model said of it."""
    number = verdict.logit if raw else verdict.score
    found = {"index": verdict.index, "relevance_score": rounded(number)}
    if verdict.truncated:
        counted = "document_tokens_more_than" if verdict.longer else "document_tokens"
        found |= {counted: verdict.document_tokens, "kept_tokens": verdict.kept_tokens}
    return orjson.dumps({**document, **found}).decode()


def _say(text: str) -> None:
    print(text)  # noqa: T201
