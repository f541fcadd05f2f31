"""Scores one file after another: reads, scores and writes a few batches of rows at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson

from rankd import __version__
from rankd.config.settings import Settings
from rankd.errors import BadSettings
from rankd.models.checkpoint import Checkpoint
from rankd.offline.formats import RowWriter, open_rows
from rankd.offline.options import ScoreOptions
from rankd.offline.outputs import FileJob, OutputFile, SourceState, done_before
from rankd.offline.row_scorer import RowScorer, ScoredRows
from rankd.offline.rows import BadRow, RowBatch, RowCounts
from rankd.ranking.profiles import Profile
from rankd.ranking.ranker import Ranker
from rankd.server.app import open_ranker, refuse_unfit_profiles

# One is read or written while others are scored. They bound the memory of a file of any size.
_BATCHES = 3

# Called with the rows and bytes of a file that are done since the last call.
OnProgress = Callable[[int, int], None]


class FileScorer:
    """Scores files with one ranker.

    Attributes:
        about: everything that decides an output, besides its input: equal values, equal scores.
    """

    def __init__(self, scorer: RowScorer, options: ScoreOptions, about: Mapping[str, Any]) -> None:
        self.about = about
        self._scorer = scorer
        self._options = options

    async def done_before(self, job: FileJob) -> RowCounts | None:
        """As `outputs.done_before`."""
        overwrite = self._options.overwrite
        return await asyncio.to_thread(done_before, job, self.about, overwrite=overwrite)

    async def score(self, job: FileJob, on_progress: OnProgress) -> RowCounts:
        """Score a file; its output appears when it is complete.

        Raises:
            BadSettings: the file cannot be read, the output cannot be written, or a row cannot be
                scored and `--bad-rows` is stop.
            RankError: the engine is down.
        """
        rows = open_rows(job.source, self._options.columns)
        source = await asyncio.to_thread(SourceState.of, job.source)
        with OutputFile(job, self.about, source) as output:
            with rows.writer(output.stream) as writer:
                counts = await self._pump(rows.batches(), writer, on_progress)
            await asyncio.to_thread(output.publish, counts)
        return counts

    async def _pump(
        self, batches: Iterator[RowBatch], writer: RowWriter, on_progress: OnProgress
    ) -> RowCounts:
        """Score all batches and write them in their order."""
        counts = RowCounts()
        position = 0
        running: deque[tuple[RowBatch, asyncio.Task[ScoredRows]]] = deque()
        try:
            while True:
                batch = await asyncio.to_thread(next, batches, None)
                if batch is not None:
                    running.append((batch, asyncio.create_task(self._scorer.score(batch.rows))))
                if not running:
                    return counts
                if batch is None or len(running) == _BATCHES:
                    first, task = running.popleft()
                    scored = await self._finished(task)
                    await asyncio.to_thread(writer.write, first, scored.results)
                    counts += scored.counts
                    on_progress(len(first.rows), first.position - position)
                    position = first.position
        finally:
            for _, task in running:
                task.cancel()
            await asyncio.gather(*[task for _, task in running], return_exceptions=True)

    async def _finished(self, task: asyncio.Task[ScoredRows]) -> ScoredRows:
        scored = await task
        if scored.counts.bad_rows and self._options.bad_rows == "stop":
            problem = next(result for result in scored.results if isinstance(result, BadRow))
            raise BadSettings(f"{problem} (--bad-rows keep goes on, and writes what is wrong)")
        return scored


@asynccontextmanager
async def open_file_scorer(settings: Settings, options: ScoreOptions) -> AsyncIterator[FileScorer]:
    """Load the model and start its engine.

    Raises:
        SetupError: the model cannot be used here, or a preset or alias is wrong; says why.
    """
    async with open_ranker(settings) as (checkpoint, ranker):
        own = {checkpoint.name, settings.model}
        await refuse_unfit_profiles(settings, checkpoint, ranker, own)
        # The checkpoint's own instruction, where the operator chose none.
        instruction = ranker.encoder.instruction or ""
        chosen = settings.model_copy(update={"instruction": instruction})
        scorer = RowScorer(ranker, chosen, options)
        about = await asyncio.to_thread(_about, checkpoint, ranker, chosen, options, scorer.profile)
        yield FileScorer(scorer, options, about)


def _about(
    checkpoint: Checkpoint,
    ranker: Ranker,
    settings: Settings,
    options: ScoreOptions,
    profile: Profile,
) -> dict[str, Any]:
    info = ranker.engine.info
    columns = options.columns
    about = {
        "model": checkpoint.name,
        "weights": checkpoint.fingerprint()[:16],
        "template": ranker.encoder.template,
        "engine": f"{info.name} {info.version}".rstrip(),
        "device": info.device,
        "dtype": info.dtype,
        "arithmetic": info.arithmetic if settings.deterministic else "",
        "max_tokens": info.max_tokens,
        "instruction": profile.instruction or settings.instruction,
        "truncation": settings.truncation,
        "client_prompts": settings.client_prompts,
        "alias": options.alias and settings.aliases[options.alias].model_dump(),
        "calibration": {name: one.model_dump() for name, one in settings.calibration.items()},
        "query column": columns.query,
        "document column": columns.document,
        "instruction column": columns.instruction,
        "score column": columns.score,
        "raw scores": options.raw_scores,
        "rankd": __version__,
    }
    # As a record has it.
    normal: dict[str, Any] = orjson.loads(orjson.dumps(about))
    return normal
