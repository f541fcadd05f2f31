"""The help of each command: usage in one line, kinds of values, no Python notation."""

from __future__ import annotations

import pytest

from rankd.cli.main import main


@pytest.mark.parametrize(
    ("command", "usage"),
    [
        ("serve", "[MODEL] [OPTION ...]"),
        ("check", "[MODEL] [OPTION ...]"),
        ("rerank", "FILE --query TEXT [OPTION ...]"),
        ("score", "FILE ... --out DIR [OPTION ...]"),
        ("eval", "DIR --run FILE|--bm25|--shadow-lines FILE [OPTION ...]"),
        ("calibrate", "FILE [OPTION ...]"),
        ("download", "[MODEL] [OPTION ...]"),
        ("probe", "[OPTION ...]"),
    ],
)
def test_usage_is_one_line_with_the_required_arguments(
    command: str, usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])

    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert text.startswith(f"usage: rankd {command} {usage}\n\n")
    assert "?." not in text
    for word in ("[None]", "[()]", "[{}]"):
        assert word not in text


def test_help_names_the_kind_of_value_of_each_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["serve", "--help-all"])

    text = capsys.readouterr().out
    for flag in (
        "--read-timeout-seconds NUMBER",
        "--vllm-args JSON",
        "--aliases JSON",
        "--batch-dir PATH",
        "--port INT",
        "--host TEXT",
    ):
        assert f"  {flag}" in text
