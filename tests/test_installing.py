"""The command that installs an extra, by where rankd was installed from."""

from __future__ import annotations

import json
import sys
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import pytest

from rankd import installing
from rankd.installing import install_command


@pytest.fixture(autouse=True)
def active_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)


def install_from(monkeypatch: pytest.MonkeyPatch, folder: Path, origin: Any) -> None:
    """Let rankd be installed with this direct_url.json; None: from an index."""
    metadata = folder / "rankd-0.1.0.dist-info"
    metadata.mkdir()
    if origin is not None:
        (metadata / "direct_url.json").write_text(json.dumps(origin))
    monkeypatch.setattr(installing, "distribution", lambda _: Distribution.at(metadata))


def test_from_an_index_the_name_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_from(monkeypatch, tmp_path, None)

    assert install_command("eval") == "pip install 'rankd[eval]'"


def test_in_a_checkout_it_is_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install_from(monkeypatch, tmp_path, {"url": tmp_path.as_uri(), "dir_info": {"editable": True}})

    elsewhere = install_command("eval")
    monkeypatch.chdir(tmp_path)

    assert elsewhere == f"pip install -e '{tmp_path}[eval]'"
    assert install_command("eval") == "pip install -c constraints.txt -e '.[eval]'"


def test_a_wheel_or_folder_is_named_while_it_exists(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel = tmp_path / "rankd 1-py3-none-any.whl"
    wheel.touch()
    install_from(monkeypatch, tmp_path, {"url": wheel.as_uri(), "archive_info": {}})

    there = install_command("redis")
    wheel.unlink()

    assert there == f"pip install '{wheel}[redis]'"
    assert install_command("redis") == "pip install 'rankd[redis]'"


def test_a_repository_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = "https://git.example/rankd"
    install_from(monkeypatch, tmp_path, {"url": url, "vcs_info": {"vcs": "git"}})

    assert install_command("otel") == f"pip install 'rankd[otel] @ git+{url}'"


def test_pip_has_its_path_in_an_environment_that_is_not_active(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install_from(monkeypatch, tmp_path, None)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.chdir(tmp_path)

    assert install_command("eval") == ".venv/bin/pip install 'rankd[eval]'"
