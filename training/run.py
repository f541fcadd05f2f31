"""The whole road from nothing to a checkpoint, or a part of it.

python run.py                       everything, in order; about an hour
python run.py fetch records         only these steps
python run.py train --minutes 20    a shorter training
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
# glibc hands large blocks back to the kernel after every step and fetches them again; keeping them
# makes a training step about a third faster.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "80000000000",
    "MALLOC_TOP_PAD_": "500000000",
}


CHECKPOINT = "data/checkpoint.pt"  # Where train.py leaves it.


def python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=HERE, env=os.environ | KEEP_MEMORY, check=True)


def fetch() -> None:
    from sources import fetch_all

    fetch_all()


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "fetch": lambda _: fetch(),
    "records": lambda _: python("records.py"),
    "vocabulary": lambda _: python("vocabulary.py"),
    "pairs": lambda _: python("pairs.py"),
    "held-out": lambda _: python("held_out.py"),
    "train": lambda chosen: python("train.py", "--rate", "0.6", "--minutes", str(chosen.minutes)),
    "further": lambda _: python(
        "train.py", "--resume", CHECKPOINT, "--rate", "0.5", "--minutes", "10", "--seed", "21"
    ),
    "export": lambda _: python("export.py"),
    "evaluate": lambda _: python("evaluate.py", "--checkpoint", "data/export"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "steps",
        nargs="*",
        metavar="STEP",
        help=f"any of {', '.join(STEPS)}; all of them when none is named",
    )
    parser.add_argument(
        "--minutes", type=float, default=26, help="of training (default: %(default)s)"
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.steps) - set(STEPS):
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    for name in chosen.steps or STEPS:
        print(f"== {name}", flush=True)
        STEPS[name](chosen)


if __name__ == "__main__":
    main()
