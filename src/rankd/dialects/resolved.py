"""A resolved request: every decision of a request, made once from its body.

The ranker, the answer, its headers and its warnings are made from this object alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rankd.errors import InvalidRequest
from rankd.prompts.client_prompts import label_length
from rankd.ranking.client_prompt_policy import ClientPromptPolicy
from rankd.ranking.profiles import Profile, Profiles
from rankd.types import RankRequest, ScoredDocument, ScoreThreshold


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What a request's body does not hold.

    Attributes:
        profiles: the server's presets and aliases.
        model: the served model's name.
        caller: the name of the API key, or "".
        deadline: `time.monotonic()` at which the client stops waiting; None: no deadline.
        background: whether the request is a line of a batch job.
        client_prompts: what is done with prompts that clients bring along.
    """

    profiles: Profiles = field(default_factory=Profiles)
    model: str = ""
    caller: str = ""
    deadline: float | None = None
    background: bool = False
    client_prompts: ClientPromptPolicy = field(default_factory=ClientPromptPolicy)


@dataclass(frozen=True, slots=True)
class AnswerOptions:
    """What an answer holds.

    Attributes:
        top_n: maximum number of results; None: all.
        return_documents: whether results hold their documents.
        documents: as they were sent, for results that repeat them; empty unless
            `return_documents`.
        logits: whether results hold logits in nats instead of scores in [0, 1].
        details: whether results hold token counts, the best chunk, and the calibrated
            probability.
        threshold: None: results are left out by no threshold.
        threshold_ignored: the request has a threshold, which its dialect cannot apply.
        relevant_spans: whether results hold relevant spans.
    """

    top_n: int | None = None
    return_documents: bool = False
    documents: Sequence[Any] = ()
    logits: bool = False
    details: bool = False
    threshold: ScoreThreshold | None = None
    threshold_ignored: bool = False
    relevant_spans: bool = False


@dataclass(frozen=True, slots=True)
class ResolvedRequest:
    """A request of any dialect.

    Attributes:
        ranks: what to rank. One request, but for bodies with several queries.
        answer: what the answer holds.
        profile: the preset's name, its calibration, and where the instruction is from.
        model: as the client named it, or the served name.
        names_preset: the instruction equals a preset's name, and is read as a text.
        unknown_fields: paths of fields that the dialect does not have, sorted.
        sent_names: names of fields as the client sent them, by their name in `RankRequest`.
        bare: `ranks` without the prompt that the client brought along, and scored instead of
            them; empty if the texts are scored as sent.
        prompt_warning: warning about a prompt in the texts; empty: there is none.
    """

    ranks: tuple[RankRequest, ...]
    answer: AnswerOptions
    profile: Profile
    model: str
    names_preset: bool = False
    unknown_fields: tuple[str, ...] = ()
    sent_names: Mapping[str, str] = field(default_factory=dict)
    bare: tuple[RankRequest, ...] = ()
    prompt_warning: str = ""

    @property
    def rank(self) -> RankRequest:
        """The only request to rank."""
        [request] = self.ranks
        return request

    def in_sent_names(self, problem: InvalidRequest) -> InvalidRequest:
        """An error about a field of `RankRequest`, as one about the field that was sent."""
        name = self.sent_names.get(problem.param or "")
        if name is None:
            return problem
        message = problem.message.replace(f"{problem.param}[", f"{name}[")
        return type(problem)(message, param=name)

    def with_sent_spans(self, scored: ScoredDocument) -> ScoredDocument:
        """A result for the only request in `bare`, with spans in the document as it was sent."""
        if scored.span is None:
            return scored
        start, end = scored.span
        length = label_length(self.rank.documents[scored.index])
        relevant = scored.relevant_spans
        return replace(
            scored,
            span=(start + length, end + length),
            relevant_spans=None if relevant is None else tuple([s.moved(length) for s in relevant]),
        )
