"""configs/: every file loads, says how it is started, and shows what is true."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rankd.config.settings import Settings
from rankd.config.sources import load
from support.servers import run

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
REFERENCE = ROOT / "configs" / "reference.toml"
MODELS = [file for file in CONFIGS if file.name.startswith("qwen3-")]


def test_the_reference_is_what_settings_py_says() -> None:
    made = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "reference_config.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert REFERENCE.read_text() == made.stdout, "run `make configs`"


def test_the_reference_holds_every_setting_and_changes_none() -> None:
    text = REFERENCE.read_text()
    shown = set(re.findall(r"^(?:# )?(\w+) =", text, re.MULTILINE))
    tables = set(re.findall(r"^\[(\w+)\]", text, re.MULTILINE))

    assert set(Settings.model_fields) - shown - tables == {"vllm_args"}
    assert "vllm" in tables
    assert load({}, {}, REFERENCE) == Settings()


def test_the_examples_in_the_reference_can_be_uncommented(tmp_path: Path) -> None:
    file = tmp_path / "all.toml"
    file.write_text(re.sub(r"^#(?=\S)", "", REFERENCE.read_text(), flags=re.MULTILINE))
    settings = load({}, {}, file)

    assert settings.instructions.keys() == {"code-question"}
    assert settings.aliases["house/code"].preset == "code-question"
    assert settings.calibration["default"].threshold == 0.4
    assert settings.key_presets == {"acme": "code-question"}
    assert settings.vllm_args == {
        "gpu_memory_utilization": 0.85,
        "tensor_parallel_size": 1,
        "data_parallel_size": 1,
    }


@pytest.mark.parametrize(
    "file", [file for file in CONFIGS if file != REFERENCE], ids=lambda file: file.name
)
def test_each_says_the_command_that_takes_it(file: Path) -> None:
    [command] = re.findall(r"^# .*\brankd (serve .*)$", file.read_text(), re.MULTILINE)
    assert f"--config configs/{file.name}" in command

    ended = run(*command.split(), "--print-config")

    assert ended.returncode == 0, ended.stderr
    for name, value in tomllib.loads(file.read_text()).items():
        assert f"{name} = " in ended.stdout or isinstance(value, dict)


@pytest.mark.parametrize("file", MODELS, ids=lambda file: file.name)
def test_the_name_says_which_model_runs_on_what(file: Path) -> None:
    size, device = re.fullmatch(r"qwen3-([\d.]+)b-(\w+)\.toml", file.name).groups()  # type: ignore[union-attr]
    settings = load({}, {}, file)

    assert settings.model == f"Qwen/Qwen3-Reranker-{size}B"
    assert settings.device == {"ascend": "npu"}.get(device, device)
    assert settings.engine == ("native" if device == "cpu" else "vllm")
    assert device == "cpu" or "not run on hardware" in file.read_text()


def test_behind_nginx_names_numbers_that_nginx_has() -> None:
    said = (ROOT / "deploy" / "nginx" / "locations.conf").read_text()
    file = (ROOT / "configs" / "behind-nginx.toml").read_text()

    for name in ("max_body_bytes", "batch_file_bytes", "read_timeout_seconds"):
        assert getattr(load({}, {}, ROOT / "configs" / "behind-nginx.toml"), name) == getattr(
            Settings(), name
        )
    quoted = re.findall(r"(\w+_(?:timeout|max_body_size)) (\w+)", file)
    assert len(quoted) >= 4
    assert all(f"{directive} {value};" in said for directive, value in quoted)


def test_the_page_on_deployment_names_every_file() -> None:
    page = (ROOT / "docs" / "deployment.md").read_text()

    assert [file.name for file in CONFIGS if f"`{file.name}`" not in page] == []
