"""`rankd eval`: measures rankings before and after reranking."""

from __future__ import annotations

import argparse

from rankd.cli.common import load_quiet_settings
from rankd.evaluation.evaluate import evaluate
from rankd.evaluation.options import EvalOptions


async def run(options: argparse.Namespace) -> int:
    """Returns the exit status."""
    settings = load_quiet_settings(options)
    return await evaluate(settings, EvalOptions.of(options))
