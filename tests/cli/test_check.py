"""`rankd check`: the known pairs and the verdict. Its JSON is tested in `test_report.py`."""

from __future__ import annotations

from pathlib import Path

from support.servers import run


def test_check_prints_every_known_pair_and_the_verdict() -> None:
    ended = run("check")

    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("  ok") == 3
    assert "This set-up gives right scores." in ended.stdout


def test_check_fails_on_random_weights(random_checkpoint: Path) -> None:
    ended = run("check", str(random_checkpoint))

    assert ended.returncode == 1
    assert "the self-check failed on" in ended.stdout
