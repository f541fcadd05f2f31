"""Opens a scorer: a local engine, or a client of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rankd.evaluation.scorer import Scorer, ScorerOptions
from rankd.server.progress import show_progress


@asynccontextmanager
async def open_scorer(options: ScorerOptions) -> AsyncIterator[Scorer]:
    """Open a scorer that is ready to use.

    Raises:
        SetupError: the model or the server cannot be used; says why.
    """
    if options.url is None:
        # Imported on use: only a local engine needs the server's packages.
        from rankd.evaluation.local_scorer import open_local

        async with show_progress(open_local(options)) as local:
            yield local
        return
    from rankd.evaluation.server_scorer import open_remote

    async with open_remote(options, options.url) as remote:
        yield remote
