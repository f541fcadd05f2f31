"""Scores rows with a ranker, as a server with the same settings would."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, cast

from rankd.config.settings import Settings
from rankd.errors import InvalidRequest, PoisonRequest
from rankd.offline.options import ScoreOptions
from rankd.offline.rows import BadRow, Row, RowCounts, RowResult, RowScores
from rankd.ranking.client_prompt_policy import ClientPromptPolicy
from rankd.ranking.profiles import Profile, Profiles, check_names
from rankd.ranking.ranker import Ranker
from rankd.types import RankRequest, ScoredDocument, rounded_all, shown_numbers

# Documents per call of the ranker: enough to fill batches and to share prefixes.
_CALL_DOCUMENTS = 512


Found = Literal["whole", "parts"]


class _Place(NamedTuple):
    """Where a document is: index of its row, and of the document in the row."""

    row: int
    document: int


@dataclass
class _RowGroup:
    """Documents with one query and one instruction, from any rows.

    Attributes:
        request: has no documents.
        prompt: the texts held the model's prompt, which was taken off, or parts of it.
    """

    request: RankRequest
    profile: Profile
    texts: tuple[str, ...]
    places: list[_Place]
    prompt: Found | None = None

    @property
    def rows(self) -> int:
        return len({place.row for place in self.places})


@dataclass(frozen=True)
class ScoredRows:
    """The results of rows, in their order."""

    results: list[RowResult]
    counts: RowCounts

    def __add__(self, other: ScoredRows) -> ScoredRows:
        return ScoredRows(self.results + other.results, self.counts + other.counts)


class RowScorer:
    """Scores rows. Rows with equal queries share the work for the query.

    Args:
        settings: with the model's own instruction, if the operator chose none.

    Raises:
        BadSettings: there is no such preset or alias; names the nearest.
    """

    def __init__(self, ranker: Ranker, settings: Settings, options: ScoreOptions) -> None:
        check_names(settings, options.preset, options.alias)
        self._ranker = ranker
        self._options = options
        self._profiles = Profiles(settings)
        self._policy = ClientPromptPolicy(
            settings.client_prompts, takes_instruction=ranker.encoder.takes_instruction
        )
        self._step = min(_CALL_DOCUMENTS, ranker.max_documents)
        self.profile = self._profile(None)

    async def score(self, rows: Sequence[Row | BadRow]) -> ScoredRows:
        """Score rows; one that cannot be scored gets a `BadRow`.

        Raises:
            RankError: the engine is down.
        """
        good = [row for row in rows if isinstance(row, Row)]
        scored = await self._score(good)
        rest = iter(scored.results)
        results = [row if isinstance(row, BadRow) else next(rest) for row in rows]
        bad = sum([isinstance(result, BadRow) for result in results])
        return ScoredRows(results, scored.counts + RowCounts(rows=len(rows), bad_rows=bad))

    async def _score(self, rows: Sequence[Row]) -> ScoredRows:
        try:
            return await self._score_together(rows)
        except InvalidRequest as problem:
            if len(rows) == 1:
                return ScoredRows([BadRow(rows[0].location, problem.message)], RowCounts())
            # One of the rows causes the error. If it is a crash of the engine, scoring each row
            # alone costs the fewest crashes.
            size = 1 if isinstance(problem, PoisonRequest) else len(rows) // 2
        scored = ScoredRows([], RowCounts())
        for start in range(0, len(rows), size):
            scored += await self._score(rows[start : start + size])
        return scored

    async def _score_together(self, rows: Sequence[Row]) -> ScoredRows:
        """Raises `InvalidRequest` if one of the rows cannot be scored."""
        documents: list[list[ScoredDocument | None]] = [[None] * len(row.documents) for row in rows]
        profiles = [self.profile] * len(rows)
        groups = self._groups(rows)
        for call in _calls(groups, self._step):
            requests = [replace(one.request, documents=one.texts) for one in call]
            ranked = await self._ranker.rank_all(requests)
            for group, found in zip(call, ranked, strict=True):
                for place, document in zip(group.places, found, strict=True):
                    documents[place.row][place.document] = document
                    profiles[place.row] = group.profile
        scored = [cast(list[ScoredDocument], of_row) for of_row in documents]
        results = [self._result(*pair) for pair in zip(scored, profiles, strict=True)]
        every = [document for of_row in scored for document in of_row]
        return ScoredRows(
            list[RowResult](results),
            RowCounts(
                documents=len(every),
                tokens=sum([document.tokens for document in every]),
                truncated=sum([document.truncated for document in every]),
                unwrapped=sum([group.rows for group in groups if group.prompt == "whole"]),
                suspicious=sum([group.rows for group in groups if group.prompt == "parts"]),
            ),
        )

    def _result(self, documents: Sequence[ScoredDocument], profile: Profile) -> RowScores:
        normalized = [profile.normalized(document) for document in documents]
        known = [number for number in normalized if number is not None]
        return RowScores(
            numbers=shown_numbers(documents, logits=self._options.raw_scores),
            truncated=[document.truncated for document in documents],
            normalized=rounded_all(known) if len(known) == len(documents) else None,
        )

    def _groups(self, rows: Sequence[Row]) -> list[_RowGroup]:
        places: dict[tuple[str, str | None], list[_Place]] = {}
        for index, row in enumerate(rows):
            of_query = places.setdefault((row.query, row.instruction), [])
            of_query += [_Place(index, number) for number in range(len(row.documents))]
        return [
            self._group(
                query,
                instruction,
                tuple([rows[place.row].documents[place.document] for place in of_query]),
                of_query,
            )
            for (query, instruction), of_query in places.items()
        ]

    def _group(
        self, query: str, instruction: str | None, texts: tuple[str, ...], places: list[_Place]
    ) -> _RowGroup:
        prompt = self._policy.check([(query, texts)])
        found: Found | None = None
        if prompt is not None:
            found = "whole" if prompt.bare else "parts"
            if self._uses_prompt_instruction and not instruction:
                instruction = prompt.instruction or None
            [(query, texts)] = prompt.bare or [(query, texts)]
        profile = self._profile(instruction)
        return _RowGroup(profile.request(query), profile, texts, places, found)

    @property
    def _uses_prompt_instruction(self) -> bool:
        given = self._options.preset or self._options.own_instruction
        return self._policy.takes_instruction and not given

    def _profile(self, instruction: str | None) -> Profile:
        options = self._options
        return self._profiles.choose(text=instruction, preset=options.preset, model=options.alias)


def _calls(groups: Iterable[_RowGroup], step: int) -> Iterator[list[_RowGroup]]:
    """The groups in calls of at most `step` documents; a larger group is divided."""
    call: list[_RowGroup] = []
    room = step
    for group in groups:
        for part in _parts(group, step):
            if len(part.places) > room:
                yield call
                call, room = [], step
            call.append(part)
            room -= len(part.places)
    if call:
        yield call


def _parts(group: _RowGroup, step: int) -> Iterator[_RowGroup]:
    for start in range(0, len(group.places), step):
        end = start + step
        yield replace(group, texts=group.texts[start:end], places=group.places[start:end])
