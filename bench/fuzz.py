"""Damaged requests at every path that takes a POST: any 5xx, reset, hang or slow /livez is a fault.

    python bench/fuzz.py [--bodies 20000] [--seed 16] [--model builtin] [--clients 4]

Without --model the fake engine answers, which takes no time of its own. Exits with 1 after a fault.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.fuzzing import fuzz  # noqa: E402
from support.servers import serving  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bodies", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=16)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--model")
    options = parser.parse_args()
    engine = (options.model,) if options.model else ("--engine", "fake")
    with tempfile.TemporaryDirectory() as folder:
        arguments = (*engine, "--batch-dir", folder, "--no-access-log", "--no-ui")
        with serving(*arguments) as server:
            began = time.monotonic()
            report = fuzz(
                server.url, seed=options.seed, count=options.bodies, clients=options.clients
            )
            seconds = time.monotonic() - began
            status, errors = server.stop(signal.SIGTERM)
    print(f"seed {options.seed}, {seconds:.0f} s: {report}")
    faults = [*report.faults[:20], *report.slow()]
    print(*faults, sep="\n")
    if faults or status != 0 or "Traceback" in errors:
        sys.exit(f"exit status {status}; {errors.count('Traceback')} tracebacks")


if __name__ == "__main__":
    main()
