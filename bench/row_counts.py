"""Products of many different numbers of rows: CPU time, and the memory that oneDNN's code takes.

    python bench/row_counts.py [--counts 300]

Batches differ in size, and oneDNN generates code for each number of rows. Each row of the table is
a process of its own: the five products of a layer, by `torch.mm` and with matrices packed for
oneDNN, in the shapes of the built-in model and of Qwen3-Reranker-0.6B; with the caches of oneDNN
and torch at their default (1,024 entries each), and as a worker sets them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

from rankd.engines.native import linear
from rankd.engines.native.process import ONEDNN_CACHES

SHAPES = {
    "built-in": [(320, 160), (320, 160), (160, 320), (768, 160), (160, 384)],
    "0.6B": [(2048, 1024), (2048, 1024), (1024, 2048), (6144, 1024), (1024, 3072)],
}
SMALLEST, LARGEST = 64, 1064


def measure(shape: str, dtype: torch.dtype, way: str, counts: int) -> tuple[float, float]:
    """CPU milliseconds of the five products, and MiB that the process grew by."""
    torch.set_num_threads(2)
    matrices = [torch.randn(rows, columns).to(dtype) for rows, columns in SHAPES[shape]]
    packed = [linear._pack(matrix) for matrix in matrices]
    inputs = [torch.randn(LARGEST, matrix.shape[1]).to(dtype) for matrix in matrices]

    def multiply(rows: int) -> None:
        for source, matrix, blocks in zip(inputs, matrices, packed, strict=True):
            if way == "packed":
                linear._multiply(source[:rows], blocks)
            else:
                torch.mm(source[:rows], matrix.t())

    multiply(LARGEST)
    order = torch.randperm(LARGEST - SMALLEST)[:counts] + SMALLEST
    memory, began = _resident(), time.process_time()
    for rows in order.tolist():
        multiply(rows)
    return 1000 * (time.process_time() - began) / counts, _resident() - memory


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--counts", type=int, default=300, help="different numbers of rows")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        shape, dtype, way = options.one
        with torch.inference_mode():
            milliseconds, grown = measure(shape, getattr(torch, dtype), way, options.counts)
        print(f"{milliseconds:.2f} | {grown:.0f}")
        return
    print("| shapes | dtype | products | caches | CPU ms | grown by, MiB |")
    print("|---|---|---|---|---|---|")
    for shape in SHAPES:
        for dtype in ("float32", "bfloat16"):
            for way in ("torch.mm", "packed"):
                for caches, variables in (("default", {}), ("worker's", ONEDNN_CACHES)):
                    command = [sys.executable, __file__, "--counts", str(options.counts)]
                    figures = subprocess.run(
                        [*command, "--one", shape, dtype, way],
                        env=os.environ | variables,
                        capture_output=True,
                        text=True,
                        check=True,
                    ).stdout.strip()
                    print(f"| {shape} | {dtype} | {way} | {caches} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
