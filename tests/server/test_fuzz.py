"""Fuzzed bodies at every path: no 5xx, no reset, no hang. `bench/fuzz.py` sends many more."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from support.fuzz_bodies import fuzzed_requests
from support.fuzzing import fuzz
from support.servers import serving

SEED = 16


@pytest.mark.slow
def test_two_thousand_damaged_requests_do_no_harm(tmp_path: Path) -> None:
    options = ("--engine", "fake", "--batch-dir", str(tmp_path), "--no-access-log", "--no-ui")
    with serving(*options) as server:
        report = fuzz(server.url, seed=SEED, count=2_000)
        _, errors = server.stop(signal.SIGTERM)

    assert report.faults == []
    assert report.statuses.total() == 2_000
    assert min(report.statuses[200], report.statuses[400]) > 300  # Nearly right, and not quite.
    assert report.probes > 10
    assert "Traceback" not in errors


def test_requests_come_from_the_seed_alone() -> None:
    first, again, other = (list(fuzzed_requests(seed, 300)) for seed in (SEED, SEED, SEED + 1))

    assert first == again != other
    assert len({request.path for request in first}) > 60
    assert len({damage for request in first for damage in request.damage}) > 10
