"""Downloads from a hub on 127.0.0.1: progress, failures, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rankd.errors import INTERRUPTED
from support import layouts
from support.hub import MODEL, PADDING, hub
from support.servers import command, run
from support.terminals import on_terminal


@pytest.fixture
def files(builtin: Path, tmp_path: Path) -> Path:
    """The files of a model on the hub."""
    folder = tmp_path / "files"
    folder.mkdir()
    for file in builtin.iterdir():
        if file.suffix in (".json", ".safetensors"):
            (folder / file.name).symlink_to(file)
    (folder / PADDING).write_bytes(bytes(60_000_000))
    return folder


def environment(url: str, tmp_path: Path) -> dict[str, str]:
    return {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}


@pytest.mark.slow
def test_a_terminal_shows_the_progress_and_remaining_time_of_a_download(
    files: Path, tmp_path: Path
) -> None:
    with hub(files, seconds=6) as url:
        shown = on_terminal("check", MODEL, columns=110, environment=environment(url, tmp_path))

    assert shown.status == 0
    size = sum(file.stat().st_size for file in files.iterdir()) / 1e6
    assert f"downloading {MODEL}: " in shown.raw
    assert f" of {size:.1f} MB, less than 10 s left, then it is loaded" in shown.raw
    # At the end the progress line is erased.
    assert "downloading" not in shown.text
    assert "This set-up gives right scores." in shown.text


@pytest.mark.slow
def test_the_log_has_a_line_for_each_step(files: Path, tmp_path: Path) -> None:
    with hub(files) as url:
        ended = run(
            *("check", MODEL, "--log-level", "debug", "--log-format", "text"),
            **environment(url, tmp_path),
        )

    steps = [line.split(" rankd: ")[1] for line in ended.stderr.splitlines() if " rankd: " in line]
    assert ended.returncode == 0
    assert steps[:2] == [f"looking for {MODEL} on the hub", f"downloading {MODEL}"]
    assert f"loading {MODEL}" in steps
    assert "\x1b" not in ended.stderr
    assert "it/s" not in ended.stderr  # The hub's client draws no bar of its own.


@pytest.mark.slow
def test_a_chat_template_is_downloaded_too(files: Path, tmp_path: Path) -> None:
    (files / PADDING).unlink()
    (files / "chat_template.jinja").write_text(layouts.DOCUMENT_FIRST)

    with hub(files) as url:
        ended = run("check", MODEL, **environment(url, tmp_path))

    assert "read chat_template.jinja: prompt with document, query, instruction" in ended.stdout


def test_ctrl_c_stops_a_download_at_once(files: Path, tmp_path: Path) -> None:
    with hub(files, seconds=100) as url:
        began = time.monotonic()
        shown = on_terminal(
            "check", MODEL, until="downloading", environment=environment(url, tmp_path), seconds=60
        )

    assert shown.status == INTERRUPTED
    assert "Traceback" not in shown.raw
    assert time.monotonic() - began < 50


def test_sigterm_stops_a_server_that_still_downloads(files: Path, tmp_path: Path) -> None:
    with hub(files, seconds=100) as url:
        process = subprocess.Popen(
            command("serve", MODEL, "--port", "0"),
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment(url, tmp_path),
        )
        try:
            assert process.stderr is not None
            while "downloading" not in process.stderr.readline():
                assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=50)
        finally:
            process.kill()

    assert process.returncode == 0
    assert "Traceback" not in errors


def test_a_model_that_the_hub_does_not_have_is_a_one_line_error(
    files: Path, tmp_path: Path
) -> None:
    with hub(files) as url:
        ended = run("check", "someone/else", **environment(url, tmp_path))

    assert ended.returncode == 3
    assert ended.stderr.startswith("rankd: 'someone/else' is not a local folder and could not be ")
    assert ended.stderr.count("\n") == 1
