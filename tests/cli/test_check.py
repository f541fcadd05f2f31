"""`rankd check`: the known pairs and the verdict. Its JSON is tested in `test_report.py`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support import layouts
from support.layouts import CAPITAL_YES, stated
from support.servers import run


def test_check_prints_every_known_pair_and_the_verdict() -> None:
    ended = run("check")

    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("  ok") == 3
    assert "\nexact   float32, the exact format\n" in ended.stdout
    assert "This set-up gives right scores." in ended.stdout


def test_check_prints_how_far_bfloat16_is_from_float32() -> None:
    ended = run("check", "--dtype", "bfloat16")

    assert ended.returncode == 0, ended.stdout
    assert "\nengine  native on cpu, bfloat16 (set by dtype), 8192 tokens a pair" in ended.stdout
    [(difference, spread)] = re.findall(
        r"^exact   logits differ by at most (\S+) nats from float32; they spread over (\S+)$",
        ended.stdout,
        re.MULTILINE,
    )
    assert 0 < float(difference) < 0.03 * float(spread)


def test_check_fails_on_random_weights(random_checkpoint: Path) -> None:
    ended = run("check", str(random_checkpoint))

    assert ended.returncode == 1
    assert "the self-check failed on" in ended.stdout


def test_check_lists_what_the_checkpoint_states(random_checkpoint: Path, tmp_path: Path) -> None:
    """One token, a prompt of its own and a scale; random weights fail as they always do."""
    folder = stated(
        tmp_path / "model",
        random_checkpoint,
        template=layouts.TURNS,
        answers=(CAPITAL_YES, None),
        scale=0.2,
    )

    ended = run("check", str(folder))

    assert ended.returncode == 1
    assert "the self-check failed on" in ended.stdout
    assert "both on one side of 0.5" not in ended.stdout
    for line in (
        "read 1_LogitScore/config.json: score = logit of token 9454 alone",
        "read 2_Dense/config.json: score times 0.2",
        "read config_sentence_transformers.json: activation Sigmoid, which is the score of rankd",
        "read chat_template.jinja: prompt with query, document",
    ):
        assert f"\n{line}\n" in ended.stdout


@pytest.mark.slow
def test_a_statement_that_is_refused_is_one_line_with_status_3(
    random_checkpoint: Path, tmp_path: Path
) -> None:
    folder = stated(
        tmp_path / "model", random_checkpoint, activation="torch.nn.modules.activation.Tanh"
    )

    ended = run("check", str(folder))

    assert ended.returncode == 3
    assert "activation_fn 'torch.nn.modules.activation.Tanh'; rankd answers" in ended.stderr
    assert "Traceback" not in ended.stderr
