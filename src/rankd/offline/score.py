"""`rankd score`: scores files, in this process or on a Ray cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rankd.config.settings import Settings
from rankd.offline.file_scorer import open_file_scorer
from rankd.offline.formats import check_first_rows, open_rows
from rankd.offline.jobs import file_jobs
from rankd.offline.options import ScoreOptions
from rankd.offline.outputs import FileJob, locked
from rankd.offline.progress import Progress
from rankd.server.progress import show_progress

# Files that are scored at the same time, so that the engine has work while one is finished.
_FILES = 2


async def score(settings: Settings, options: ScoreOptions) -> int:
    """Run the command; returns the exit code.

    Raises:
        SetupError: an input or an option is wrong, or the model cannot be used; says why.
        RankError: the engine is down.
    """
    jobs = file_jobs(options.files, options.out)
    await asyncio.to_thread(_check_inputs, jobs, options)
    with locked(options.out.resolve()):
        progress = Progress(jobs)
        try:
            if options.ray is None:
                await _score_here(settings, options, jobs, progress)
            else:
                from rankd.offline.cluster import score_on_cluster

                score_on_cluster(settings, options, jobs, progress)
        except BaseException:
            progress.stop()
            raise
    progress.finish(options.out)
    return 0


def _check_inputs(jobs: Sequence[FileJob], options: ScoreOptions) -> None:
    """Raise `BadSettings` if a file cannot be read or has other columns."""
    for job in jobs:
        rows = open_rows(job.source, options.columns)
        if options.bad_rows == "stop":
            check_first_rows(rows)


async def _score_here(
    settings: Settings, options: ScoreOptions, jobs: Sequence[FileJob], progress: Progress
) -> None:
    async with show_progress(open_file_scorer(settings, options)) as scorer:
        waiting = []
        # All of them first: an output that must not be replaced is an error before the work.
        for job in jobs:
            counts = await scorer.done_before(job)
            if counts is None:
                waiting.append(job)
            else:
                progress.file_was_done(job, counts)
        progress.begin()
        next_jobs = iter(waiting)

        async def work() -> None:
            for job in next_jobs:
                progress.file_done(job, await scorer.score(job, progress.add))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_FILES):
                    group.create_task(work())
        except ExceptionGroup as problems:
            raise problems.exceptions[0] from None
