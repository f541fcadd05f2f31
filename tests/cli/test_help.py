"""What `--help` says: one screen before the settings, and nothing of Python."""

from __future__ import annotations

import pytest

from rankd.cli.main import main


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("serve", "[MODEL] [OPTION ...]"),
        ("check", "[MODEL] [OPTION ...]"),
        ("rerank", "FILE --query TEXT [OPTION ...]"),
        ("eval", "DIR --run FILE|--bm25 [OPTION ...]"),
        ("calibrate", "FILE [OPTION ...]"),
        ("probe", "[OPTION ...]"),
    ],
)
def test_help_says_what_is_needed_in_one_line(
    command: str, usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    said = capsys.readouterr().out
    assert ended.value.code == 0
    assert said.startswith(f"usage: rankd {command} {usage}\n\n")
    assert "?." not in said
    for word in ("[None]", "[()]", "[{}]"):
        assert word not in said


def test_help_says_what_kind_of_value_a_setting_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help"])

    said = capsys.readouterr().out
    for flag in (
        "--read-timeout-seconds NUMBER",
        "--vllm-args JSON",
        "--aliases JSON",
        "--batch-dir PATH",
        "--port INT",
        "--host TEXT",
    ):
        assert f"  {flag}" in said
