"""Downloads from a hub on 127.0.0.1: progress, failures, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rankd.errors import INTERRUPTED
from rankd.models.hub_errors import explain
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


def test_the_command_download_fetches_what_a_server_without_network_needs(
    files: Path, tmp_path: Path
) -> None:
    with hub(files) as url:
        fetched = run("download", MODEL, **environment(url, tmp_path))
    folder = Path(fetched.stdout.strip())
    offline = environment("http://127.0.0.1:9", tmp_path) | {"HF_HUB_OFFLINE": "1"}
    again = run("download", MODEL, **offline)

    assert fetched.returncode == 0
    assert [line.split(" rankd: ")[1] for line in fetched.stderr.splitlines()] == [
        f"looking for {MODEL} on the hub",
        f"downloading {MODEL}",
        f"checking {len(list(files.iterdir()))} files",
    ]
    assert folder.is_relative_to(tmp_path / "cache")
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= {
        file.name for file in folder.iterdir()
    }
    assert (again.returncode, again.stdout) == (0, fetched.stdout)


def test_a_damaged_file_is_removed_and_alone_downloaded_again(files: Path, tmp_path: Path) -> None:
    sent: list[str] = []
    with hub(files, sent=sent) as url:
        folder = Path(run("download", MODEL, **environment(url, tmp_path)).stdout.strip())
        first = set(sent)
        with (folder / "config.json").open("ab") as config:
            config.write(b" ")
        damaged = run("download", MODEL, **environment(url, tmp_path))
        sent.clear()
        repaired = run("download", MODEL, **environment(url, tmp_path))

    assert first == {file.name for file in files.iterdir()}
    assert damaged.returncode == 3
    last = damaged.stderr.splitlines()[-1]
    assert last.startswith("rankd: config.json is damaged: its digest is not ")
    assert last.endswith("It was removed: run the same command again")
    assert (repaired.returncode, sent) == (0, ["config.json"])


def test_after_ctrl_c_the_command_download_keeps_whole_files(files: Path, tmp_path: Path) -> None:
    sent: list[str] = []
    with hub(files, seconds=100, sent=sent) as url:
        stopped = on_terminal(
            *("download", MODEL),
            until="downloading",
            environment=environment(url, tmp_path),
            seconds=60,
        )
    whole = {file.name for file in (tmp_path / "cache").rglob("snapshots/*/*")}
    again: list[str] = []
    with hub(files, sent=again) as url:
        ended = run("download", MODEL, **environment(url, tmp_path))

    assert stopped.status == INTERRUPTED
    assert ended.returncode == 0
    assert PADDING in again
    assert whole.isdisjoint(again)


def test_a_terminal_says_how_to_serve_the_download_without_a_network(
    files: Path, tmp_path: Path
) -> None:
    (files / PADDING).unlink()
    with hub(files) as url:
        shown = on_terminal("download", MODEL, environment=environment(url, tmp_path))

    assert f"complete; without a network: HF_HUB_OFFLINE=1 rankd serve {MODEL}" in shown.text


@pytest.fixture
def modelscope(builtin: Path, tmp_path: Path) -> dict[str, str]:
    """An environment with a stand-in for ModelScope's package."""
    package = tmp_path / "packages" / "modelscope"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "def snapshot_download(model_id, revision=None, allow_patterns=None):\n"
        "    if model_id == 'someone/else':\n"
        "        raise RuntimeError('no such model')\n"
        "    print('Downloading Model from https://www.modelscope.cn')\n"
        "    assert '*.safetensors' in allow_patterns and revision in (None, 'v1')\n"
        f"    return {str(builtin)!r}\n"
    )
    path = os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")])
    return {"PYTHONPATH": path}


def test_the_command_download_uses_the_package_of_modelscope(
    builtin: Path, modelscope: dict[str, str]
) -> None:
    ended = run("download", MODEL, "--modelscope", "--revision", "v1", **modelscope)
    failed = run("download", "someone/else", "--modelscope", **modelscope)

    assert (ended.returncode, ended.stdout) == (0, f"{builtin}\n")
    assert failed.returncode == 3
    assert failed.stderr.endswith(
        "rankd: 'someone/else' could not be downloaded from ModelScope: no such model\n"
    )


def test_without_the_package_of_modelscope_it_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "modelscope.py"
    blocked.write_text("raise ImportError")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    ended = run("download", MODEL, "--modelscope", PYTHONPATH=path)

    assert ended.returncode == 2
    assert "--modelscope needs ModelScope's package: " in ended.stderr
    assert ended.stderr.endswith("pip install modelscope\n")


def test_the_command_download_fails_like_a_server(files: Path, tmp_path: Path) -> None:
    with hub(files) as url:
        ended = run("download", "someone/else", **environment(url, tmp_path))

    assert (ended.returncode, ended.stdout) == (3, "")
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("rankd: 'someone/else' is not a local folder and could not be ")


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


def failure(tmp_path: Path, **environment: str) -> str:
    """The one line that `rankd check` prints when it cannot download a model."""
    ended = run("check", "someone/else", **{"HF_HOME": str(tmp_path / "cache")} | environment)

    assert ended.returncode == 3
    assert ended.stderr.count("\n") == 1
    start = "rankd: 'someone/else' is not a local folder and could not be downloaded from the hub: "
    assert ended.stderr.startswith(start)
    return ended.stderr.removeprefix(start)


def test_a_model_that_the_hub_does_not_have_is_a_one_line_error(
    files: Path, tmp_path: Path
) -> None:
    with hub(files) as url:
        reason = failure(tmp_path, **environment(url, tmp_path))

    assert reason == (
        f"{url} has no such model, or it is private; check the spelling, or set HF_TOKEN to a "
        "token that may read it\n"
    )


def test_an_unreachable_hub_is_named_with_the_other_ways_to_the_model(tmp_path: Path) -> None:
    reason = failure(tmp_path, HF_ENDPOINT="http://127.0.0.1:9")

    assert reason == (
        "http://127.0.0.1:9 cannot be reached ([Errno 111] Connection refused). Set "
        "HF_ENDPOINT to another mirror. Or take it from ModelScope, on this or another "
        "machine: pip install modelscope && modelscope download --model someone/else --local_dir "
        "else; then serve the folder ./else\n"
    )


def test_the_offline_switch_is_named(tmp_path: Path) -> None:
    reason = failure(tmp_path, HF_HUB_OFFLINE="1")

    cache = tmp_path / "cache" / "hub"
    assert reason.startswith(f"HF_HUB_OFFLINE is set, and the cache in {cache} lacks it; unset ")
    assert "--model someone/else --local_dir else" in reason


def test_a_cache_that_cannot_be_written_is_named_with_hf_home(files: Path, tmp_path: Path) -> None:
    with hub(files) as url:
        reason = failure(tmp_path, HF_ENDPOINT=url, HF_HOME="/dev/null/cache")

    assert reason.startswith("its cache in /dev/null/cache/hub cannot be written ([Errno 20] Not ")
    assert "set HF_HOME to a folder that can be written" in reason


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        (PermissionError(13, "Permission denied", "/models"), "set HF_HOME"),
        (OSError(28, "No space left on device"), "set HF_HOME"),
        (OSError("the connection of an HTTP client failed"), "cannot be reached"),
        (RuntimeError("anything"), "cannot be reached (anything)"),
    ],
    ids=str,
)
def test_other_failures_have_a_next_step(problem: Exception, sentence: str) -> None:
    assert sentence in explain("me/x", None, problem)
