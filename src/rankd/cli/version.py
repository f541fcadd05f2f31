"""`rankd version`: prints the versions of rankd and of the libraries it uses."""

from __future__ import annotations

import argparse
import sys

from rankd.cli.common import write_line
from rankd.cli.report import EnvironmentReport
from rankd.models.checkpoint import BUILTIN, locate


async def run(options: argparse.Namespace) -> int:
    """Returns 0."""
    environment = EnvironmentReport.here()
    write_line(environment.model_dump_json(indent=2) if options.json else _table(environment))
    return 0


def _table(environment: EnvironmentReport) -> str:
    """One line per item: name, then value."""
    accelerator = environment.accelerator or "no accelerator"
    rows = {
        "rankd": f"{environment.rankd} ({environment.folder})",
        "builtin": f"revision {locate(BUILTIN).revision}",
        "python": f"{environment.python} ({sys.executable})",
        "platform": f"{environment.platform}, {environment.cores} cores, {accelerator}",
        **environment.libraries,
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())
