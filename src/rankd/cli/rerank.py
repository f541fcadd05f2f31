"""`rankd rerank`: scores a file of documents without a server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from tqdm import tqdm

from rankd.cli.common import load_quiet_settings, write_line
from rankd.cli.documents import read_documents
from rankd.config.settings import Settings
from rankd.config.tables import Platt
from rankd.config.text import has_surrogates
from rankd.dialects.relevant_spans import span_objects
from rankd.errors import BadSettings, InvalidRequest
from rankd.prompts.client_prompts import ClientPrompt, label_length
from rankd.prompts.encoder import PromptEncoder
from rankd.ranking.client_prompt_policy import ClientPromptPolicy
from rankd.ranking.profiles import Profile, Profiles, check_names
from rankd.ranking.ranker import Ranker
from rankd.server.app import open_ranker, refuse_unfit_profiles, shipped_platt
from rankd.server.progress import show_progress
from rankd.telemetry.terminal import as_utf8, is_terminal, use_utf8
from rankd.types import (
    RankRequest,
    ScoredDocument,
    SpanOptions,
    best_first,
    rounded,
)

# Documents scored between two updates of the progress bar.
_STEP = 64


@dataclass(frozen=True)
class RerankArguments:
    """The flags of `rankd rerank`.

    Attributes:
        file: a path, or `-` for standard input.
        top_n: lines to print; None: all.
        raw: print logits, in nats, instead of scores in [0, 1].
        preset: name of the instruction.
        alias: model name whose defaults apply.
        score_threshold: documents with a lower printed number are dropped; None: the
            configured threshold, if any.
        spans: maximum relevant spans per printed document; None: none.
        own_instruction: whether `--instruction` is given: it is used instead of the one in a
            prompt that the texts hold.
    """

    query: str
    file: str
    top_n: int | None = None
    raw: bool = False
    preset: str | None = None
    alias: str | None = None
    score_threshold: float | None = None
    spans: int | None = None
    own_instruction: bool = False

    def __post_init__(self) -> None:
        if not self.query.strip():
            raise BadSettings("--query must not be empty")
        if has_surrogates(self.query):
            raise BadSettings("--query is not UTF-8 text")
        if self.top_n is not None and self.top_n < 1:
            raise BadSettings(f"--top-n must be at least 1, not {self.top_n}")
        if self.spans is not None and self.spans < 1:
            raise BadSettings(f"--spans must be at least 1, not {self.spans}")
        # `not 0 <= x <= 1` is also true for NaN.
        if self.score_threshold is not None and not self.raw and not 0 <= self.score_threshold <= 1:
            raise BadSettings(
                f"--score-threshold must be from 0 to 1, not {self.score_threshold:g}"
            )

    def profile(self, settings: Settings, measured: Platt | None = None) -> Profile:
        """The profile that a server with these settings would choose.

        Args:
            measured: as of `Profiles`.

        Raises:
            BadSettings: there is no such preset or alias; names the nearest.
        """
        check_names(settings, self.preset, self.alias)
        return Profiles(settings, measured).choose(preset=self.preset, model=self.alias)

    def keeps(self, result: ScoredDocument, profile: Profile) -> bool:
        """Whether the document reaches the threshold.

        `--score-threshold` applies to the printed number, a configured threshold to the score.
        """
        threshold, raw = self.score_threshold, self.raw
        if threshold is None:
            threshold, raw = profile.threshold, False
        return threshold is None or rounded(result.logit if raw else result.score) >= threshold


async def run(options: argparse.Namespace) -> int:
    """Print the documents as JSON lines, most relevant first; returns 0."""
    if options.preset and "instruction" in options:
        raise BadSettings("--preset and --instruction both set the instruction; give one of them")
    wanted = RerankArguments(
        query=as_utf8(options.query),
        file=options.file,
        top_n=options.top_n,
        raw=options.raw_scores,
        preset=options.preset,
        alias=options.alias,
        score_threshold=options.score_threshold,
        spans=options.spans,
        own_instruction="instruction" in options,
    )
    return await _rerank(load_quiet_settings(options), wanted)


async def _rerank(settings: Settings, wanted: RerankArguments) -> int:
    wanted.profile(settings)  # Refuses unknown names before the model is loaded.
    documents = read_documents(wanted.file)
    query, texts = wanted.query, tuple([document["text"] for document in documents])
    prompt = _check_prompt(ClientPromptPolicy(settings.client_prompts), query, texts)
    async with show_progress(open_ranker(settings)) as (checkpoint, ranker):
        await refuse_unfit_profiles(settings, checkpoint, ranker, {checkpoint.name, settings.model})
        measured = await shipped_platt(checkpoint, ranker)
        profile = wanted.profile(settings, measured)
        if prompt is not None:
            profile = _prompt_profile(settings, wanted, profile, prompt, ranker.encoder, measured)
            [(query, texts)] = prompt.bare or [(query, texts)]
        request = profile.request(query)
        results = await _rank(ranker, request, texts)
        kept = [result for result in results if wanted.keeps(result, profile)]
        best = best_first(kept)[: wanted.top_n]
        if wanted.spans is not None:
            options = SpanOptions(max_spans=wanted.spans)
            best = await _find_spans(ranker, replace(request, spans=options), texts, best)
            if prompt is not None and prompt.bare:
                best = [_in_sent_text(result, documents) for result in best]
    if len(kept) < len(results) and wanted.score_threshold is None:
        _warn(
            f"{len(results) - len(kept)} of {len(results)} documents are below "
            f"{profile.threshold:g}, the configured threshold, and left out; "
            "--score-threshold 0 shows them"
        )
    use_utf8()
    for result in best:
        write_line(_line(result, documents[result.index], profile, raw=wanted.raw))
    return 0


def _check_prompt(
    policy: ClientPromptPolicy, query: str, texts: tuple[str, ...]
) -> ClientPrompt | None:
    """As `ClientPromptPolicy.check`; raises `BadSettings` if prompts are refused."""
    try:
        return policy.check([(query, texts)])
    except InvalidRequest as problem:
        raise BadSettings(problem.message) from None


def _prompt_profile(
    settings: Settings,
    wanted: RerankArguments,
    profile: Profile,
    prompt: ClientPrompt,
    encoder: PromptEncoder,
    measured: Platt | None,
) -> Profile:
    """The profile for texts that hold a prompt; warns of it."""
    own = encoder.instruction or ""
    profiles = Profiles(settings.model_copy(update={"instruction": own}), measured)
    policy = ClientPromptPolicy(takes_instruction=encoder.takes_instruction)
    is_used = encoder.takes_instruction and not (wanted.preset or wanted.own_instruction)
    if prompt.instruction and is_used:
        profile = profiles.choose(text=prompt.instruction, model=wanted.alias)
    _warn(policy.warning(prompt, profile, profiles))
    return profile


def _warn(sentence: str) -> None:
    print(f"rankd: {sentence}", file=sys.stderr)  # noqa: T201


async def _rank(ranker: Ranker, request: RankRequest, texts: Sequence[str]) -> list[ScoredDocument]:
    """Results in the order of the texts, with a progress bar if stderr is a terminal."""
    results: list[ScoredDocument] = []
    with tqdm(total=len(texts), unit="doc", disable=not is_terminal(sys.stderr)) as bar:
        step = min(_STEP, ranker.max_documents)
        for start in range(0, len(texts), step):
            part = tuple(texts[start : start + step])
            for result in await ranker.rank(replace(request, documents=part)):
                results.append(replace(result, index=start + result.index))
            bar.update(len(part))
    return results


async def _find_spans(
    ranker: Ranker, request: RankRequest, texts: Sequence[str], results: Sequence[ScoredDocument]
) -> list[ScoredDocument]:
    """The results with their relevant spans. Their documents are scored again, or cached."""
    found: list[ScoredDocument] = []
    step = min(_STEP, ranker.max_documents)
    for start in range(0, len(results), step):
        part = results[start : start + step]
        documents = tuple([texts[result.index] for result in part])
        scored = await ranker.rank(replace(request, documents=documents, details=True))
        found += [
            replace(result, relevant_spans=one.relevant_spans)
            for result, one in zip(part, scored, strict=True)
        ]
    return found


def _in_sent_text(result: ScoredDocument, documents: Sequence[Mapping[str, Any]]) -> ScoredDocument:
    """A result whose spans count the label that was taken off its document, too."""
    length = label_length(documents[result.index]["text"])
    spans = tuple([span.moved(length) for span in result.relevant_spans or ()])
    return replace(result, relevant_spans=spans)


def _line(result: ScoredDocument, document: dict[str, Any], profile: Profile, *, raw: bool) -> str:
    """The document's own fields and its result, as one line of JSON."""
    number = result.logit if raw else result.score
    fields: dict[str, Any] = {"index": result.index, "relevance_score": rounded(number)}
    if (probability := profile.normalized(result)) is not None:
        fields["normalized_score"] = rounded(probability)
    if result.truncated:
        # Long documents are counted only as far as needed.
        counted = "document_tokens_more_than" if result.longer else "document_tokens"
        fields |= {counted: result.document_tokens, "kept_tokens": result.kept_tokens}
    if result.relevant_spans:
        fields["relevant_spans"] = span_objects(result.relevant_spans)
    return orjson.dumps({**document, **fields}).decode()
