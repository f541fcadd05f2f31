"""The commands that need no server: `rankd check` and `rankd rerank`."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import orjson
from tqdm import tqdm

from rankd import __version__
from rankd.cli.report import RIGHT, CheckReport
from rankd.config.settings import Settings
from rankd.config.suggest import nearest
from rankd.dialects.handler import with_alias_truncation
from rankd.dialects.json_io import parse, rounded
from rankd.errors import BadSettings, InvalidRequest, RankError, SetupError
from rankd.ranking import self_check
from rankd.ranking.profiles import Profile, Profiles
from rankd.ranking.ranker import Ranker
from rankd.server.app import open_ranker, refuse_unfit_profiles
from rankd.server.progress import show_progress
from rankd.telemetry.terminal import is_terminal, styled, use_utf8
from rankd.types import RankRequest, ScoredDocument, best_first

# Documents scored between two moves of the progress bar.
_STEP = 64


async def check(settings: Settings) -> int:
    """Print how the known pairs fare; returns 0 when every one is right."""
    async with show_progress(open_ranker(settings)) as (checkpoint, ranker):
        info = ranker.engine.info
        outcomes = await self_check.score_known_pairs(ranker)
    _say(f"model   {checkpoint.name}, revision {info.revision}")
    name = f"{info.name} {info.version}".rstrip()
    _say(f"engine  {name} on {info.device}, {info.dtype}, {info.max_tokens} tokens a pair")
    _say(f"rankd   {__version__}\n")
    _say(self_check.table(outcomes))
    complaint = self_check.failure_message(outcomes)
    result = styled(complaint or RIGHT, "red" if complaint else "green", sys.stdout)
    _say(f"\n{result}")
    if info.device == "npu":
        _say("rankd is configuration-tested on Ascend, not run on it: please report these lines.")
    return 1 if complaint else 0


async def check_json(read: Callable[[], Settings]) -> int:
    """As `check`, as one JSON object, whatever happens.

    Args:
        read: makes the settings; that they are wrong is told in JSON, too.
    """
    try:
        async with show_progress(open_ranker(read())) as (checkpoint, ranker):
            outcomes = await self_check.score_known_pairs(ranker)
        report = CheckReport.of(checkpoint, ranker, outcomes)
    except SetupError as problem:
        report = CheckReport.of_failure(str(problem), problem.exit_code)
    except RankError as problem:
        report = CheckReport.of_failure(problem.message, 1)
    use_utf8()
    _say(report.model_dump_json(indent=2))
    return report.exit_code


@dataclass(frozen=True)
class RerankOptions:
    """What `rankd rerank` is asked for.

    Attributes:
        file: a path, or `-` for standard input; see `_document` for its lines.
        top_n: lines to print; None is all of them.
        raw: print logits, in nats, instead of scores in [0, 1].
        preset, alias: by which configured instruction, or as which name of the model.
        least: what is printed is not below it; None is what is configured.
    """

    query: str
    file: str
    top_n: int | None = None
    raw: bool = False
    preset: str | None = None
    alias: str | None = None
    score_threshold: float | None = None

    def __post_init__(self) -> None:
        if not self.query.strip():
            raise BadSettings("--query must not be empty")
        if any("\ud800" <= character <= "\udfff" for character in self.query):
            raise BadSettings("--query is not UTF-8 text")
        if self.top_n is not None and self.top_n < 1:
            raise BadSettings(f"--top-n must be at least 1, not {self.top_n}")
        # Written so that NaN is refused, too.
        if self.score_threshold is not None and not self.raw and not 0 <= self.score_threshold <= 1:
            raise BadSettings(
                f"--score-threshold must be from 0 to 1, not {self.score_threshold:g}"
            )

    def profile(self, settings: Settings) -> Profile:
        """By what is judged, as a server with these settings would.

        Raises:
            BadSettings: there is no such preset or alias; names the nearest.
        """
        if self.preset is not None:
            settings.instruction_named(self.preset)
        if self.alias is not None and self.alias not in settings.aliases:
            hint = nearest(self.alias, settings.aliases)
            raise BadSettings(f"--alias {self.alias!r} is not in [aliases]{hint}")
        return Profiles(settings).choose(preset=self.preset, model=self.alias)

    def lets_through(self, result: ScoredDocument, profile: Profile) -> bool:
        """Compared is what is printed; what is configured is meant for the score."""
        least, raw = self.score_threshold, self.raw
        if least is None:
            least, raw = profile.threshold, False
        return least is None or rounded(result.logit if raw else result.score) >= least


async def rerank(settings: Settings, wanted: RerankOptions) -> int:
    """Score a file's documents; prints JSON lines, most relevant first.

    Raises:
        BadSettings: the file cannot be read, or there is no such preset or alias.
    """
    profile = wanted.profile(settings)
    documents = list(_documents(wanted.file))
    if not documents:
        name = "standard input" if wanted.file == "-" else wanted.file
        raise BadSettings(f"{name} holds no documents")
    request = _ask(wanted.query, profile)
    async with show_progress(open_ranker(settings)) as (checkpoint, ranker):
        await refuse_unfit_profiles(settings, checkpoint, ranker, {checkpoint.name, settings.model})
        results = await _rank(ranker, request, [document["text"] for document in documents])
    left = [result for result in results if wanted.lets_through(result, profile)]
    if len(left) < len(results) and wanted.score_threshold is None:
        print(  # noqa: T201
            f"rankd: {len(results) - len(left)} of {len(results)} documents are below "
            f"{profile.threshold:g}, the configured threshold, and left out; "
            "--score-threshold 0 shows them",
            file=sys.stderr,
        )
    use_utf8()
    for result in best_first(left)[: wanted.top_n]:
        _say(_line(result, documents[result.index], profile, raw=wanted.raw))
    return 0


def _ask(query: str, profile: Profile) -> RankRequest:
    """All but the documents."""
    request = RankRequest(query, (), instruction=profile.instruction)
    if (alias := profile.alias) is None:
        return request
    return with_alias_truncation(
        alias, replace(request, max_document_tokens=alias.max_tokens_per_doc)
    )


async def _rank(ranker: Ranker, request: RankRequest, texts: Sequence[str]) -> list[ScoredDocument]:
    """All verdicts, in steps, with a bar where a person watches."""
    results: list[ScoredDocument] = []
    with tqdm(total=len(texts), unit="doc", disable=not is_terminal(sys.stderr)) as bar:
        step = min(_STEP, ranker.max_documents)
        for start in range(0, len(texts), step):
            part = tuple(texts[start : start + step])
            for result in await ranker.rank(replace(request, documents=part)):
                results.append(replace(result, index=start + result.index))
            bar.update(len(part))
    return results


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
        if sys.stdin is None:
            raise BadSettings("standard input is closed")
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


def _line(result: ScoredDocument, document: dict[str, Any], profile: Profile, *, raw: bool) -> str:
    """The document's own fields, and what the model said of it."""
    number = result.logit if raw else result.score
    found = {"index": result.index, "relevance_score": rounded(number)}
    if (probability := profile.normalized(result)) is not None:
        found["normalized_score"] = rounded(probability)
    if result.truncated:
        counted = "document_tokens_more_than" if result.longer else "document_tokens"
        found |= {counted: result.document_tokens, "kept_tokens": result.kept_tokens}
    return orjson.dumps({**document, **found}).decode()


def _say(text: str) -> None:
    print(text)  # noqa: T201
