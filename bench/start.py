"""Start time until `/readyz` answers 200, and memory of server and engine.

python bench/start.py [MODEL] [--times 3]
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.servers import family, get, serving


def memory(pid: int) -> int:
    """Memory of a process and its children in MiB; shared pages count once."""
    kilobytes = 0
    for one in family(pid):
        for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kilobytes += int(line.split()[1])
    return kilobytes // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", default="builtin")
    parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args()
    seconds, sizes = [], []
    for _ in range(options.times):
        began = time.perf_counter()
        with serving(options.model) as server:
            assert get(f"{server.url}/readyz").status_code == 200
            seconds.append(time.perf_counter() - began)
            sizes.append(memory(server.process.pid))
            server.stop(signal.SIGTERM)
    print("| model | seconds to ready, median | slowest | MiB, largest |")
    print("|---|---|---|---|")
    print(
        f"| {options.model} | {statistics.median(seconds):.1f} | {max(seconds):.1f} "
        f"| {max(sizes)} |"
    )


if __name__ == "__main__":
    main()
