"""The computed figures of docs/hardware.md follow from the formulas and the figures beside them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/hardware.md").read_text(encoding="utf-8")
PERFORMANCE = (ROOT / "docs/performance.md").read_text(encoding="utf-8")


def number(text: str) -> float:
    return float(text.replace(",", ""))


def test_gpu_rows_are_the_share_of_the_peak_by_the_cost_of_a_token() -> None:
    costs = re.search(
        r"costs ([\d.]+) GFLOP with 0.6B, ([\d.]+) with 4B and ([\d.]+) with 8B", PAGE
    )
    share = re.search(r"With (\d+) % of\s+the vendor's", PAGE)
    rows = re.findall(r"^\| ([\w ]+) \| (\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", PAGE, re.M)

    assert costs
    assert share
    assert len(rows) == 4
    for name, peak, *speeds in rows:
        for speed, cost in zip(speeds, costs.groups(), strict=True):
            expected = number(peak) * 1e12 * number(share[1]) / 100 / (number(cost) * 1e9)
            assert number(speed) == pytest.approx(expected, rel=0.02), name


def test_seconds_for_fifty_candidates_follow_from_the_formula() -> None:
    tokens = 70 + 50 * 200
    computed = {
        "| 2 cores with AVX-512 BF16 | 0.6B | 33, computed": tokens / 306,
        "| L4 | 0.6B | 0.2, computed": tokens / 55_000,
        "| H100 | 8B | 0.4, computed": tokens / 28_300,
    }

    assert f"{tokens:,} tokens" in PAGE
    for row, seconds in computed.items():
        assert row in PAGE
        shown = float(row.rsplit("| ", 1)[1].partition(",")[0])
        assert shown == pytest.approx(seconds, abs=0.5 if shown > 1 else 0.05)


@pytest.mark.parametrize(
    "measured",
    ["190 of these tokens in bfloat16 and 85 to 110", "170 to 200", "305 MiB", "3,100 to 4,400"],
)
def test_measured_figures_are_those_of_the_page_of_performance(measured: str) -> None:
    assert measured in re.sub(r"\s+", " ", PERFORMANCE)
    for figure in re.findall(r"\d[\d,]*(?: to \d[\d,]*)?", measured):
        assert figure in PAGE
