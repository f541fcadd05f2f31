"""`rankd calibrate`: finds score thresholds from judged pairs."""

from __future__ import annotations

import argparse

from rankd.cli.common import load_quiet_settings
from rankd.evaluation.calibrate import calibrate
from rankd.evaluation.options import CalibrateOptions


async def run(options: argparse.Namespace) -> int:
    """Returns the exit status."""
    settings = load_quiet_settings(options)
    return await calibrate(settings, CalibrateOptions.of(options))
