"""`rankd score`: scores files of queries and documents."""

from __future__ import annotations

import argparse

from rankd.cli.common import load_quiet_settings
from rankd.offline.options import ScoreOptions
from rankd.offline.score import score


async def run(options: argparse.Namespace) -> int:
    """Returns the exit status."""
    wanted = ScoreOptions.of(options)
    return await score(load_quiet_settings(options), wanted)
