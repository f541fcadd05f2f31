"""`rankd download`: fetches a model into the hub's cache, and prints its folder."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from rankd.cli.common import load_quiet_settings, write_line
from rankd.config.settings import Settings
from rankd.models.checkpoint import Checkpoint, locate
from rankd.models.download import in_thread
from rankd.server.progress import show_progress


async def run(options: argparse.Namespace) -> int:
    """Returns 0.

    Raises:
        BadModel: the model cannot be downloaded, or is not one that rankd serves.
    """
    async with show_progress(_downloaded(load_quiet_settings(options))) as checkpoint:
        write_line(str(checkpoint.path))
    return 0


@asynccontextmanager
async def _downloaded(settings: Settings) -> AsyncIterator[Checkpoint]:
    yield await in_thread(partial(locate, settings.model, settings.revision))
