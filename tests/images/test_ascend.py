"""docker/ascend.Dockerfile, built on a stand-in for vllm-ascend's image and run without an NPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import rankd
from support import vllm_image
from support.containers import Image, Options, output

pytestmark = [pytest.mark.images, pytest.mark.timeout(1800)]


def inside(**changes: object) -> Options:
    """Root with a writable file system and a container's usual rights, as compose runs it."""
    plain = Options(volumes=vllm_image.ascend_volumes(), drop_capabilities=False)
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_the_entry_point_sets_canns_variables_and_becomes_rankd(
    ascend: Image, tmp_path: Path
) -> None:
    instead = tmp_path / "rankd"
    instead.write_text('#!/bin/sh\necho "$$" "$@"\nenv\n')
    instead.chmod(0o755)
    shown = inside(volumes=[*vllm_image.ascend_volumes(), f"{instead}:/usr/local/bin/rankd:ro"])
    status, printed = output(ascend, "Qwen/Qwen3-Reranker-8B", options=shown)

    assert status == 0, printed
    assert printed.splitlines()[0] == "1 serve Qwen/Qwen3-Reranker-8B"
    assert {"TASK_QUEUE_ENABLE=1", "OMP_NUM_THREADS=1"} <= set(printed.splitlines())
    for variable in vllm_image.CANN.values():
        assert f"{variable}=/usr/local/Ascend" in printed


def test_rankd_is_installed(ascend: Image) -> None:
    assert output(ascend, "--version", options=inside()) == (0, f"rankd {rankd.__version__}\n")


@pytest.mark.parametrize("file", ["ascend-toolkit/set_env.sh", "nnal/atb/set_env.sh"])
def test_without_cann_it_says_which_file_is_missing(
    ascend: Image, tmp_path: Path, file: str
) -> None:
    folder = (Path("/usr/local/Ascend") / file).parent
    hidden = inside(volumes=[*vllm_image.ascend_volumes(), f"{tmp_path}:{folder}:ro"])
    status, printed = output(ascend, "check", options=hidden)

    assert status == 1
    assert printed == (
        f"rankd: /usr/local/Ascend/{file} is missing: is this vllm-ascend's image?\n"
    )


def test_check_says_what_is_missing_without_a_device(ascend: Image) -> None:
    status, printed = output(ascend, "check", "builtin", options=inside())

    # The sources of vllm-ascend load torch_npu first, which needs CANN and the driver.
    assert status == 2, printed
    assert "vLLM is installed, but cannot be loaded: No module named 'torch_npu'" in printed
    assert "docs/ascend.md" in printed
    assert "Traceback" not in printed


def test_its_folder_for_all_that_is_written_is_data(ascend: Image) -> None:
    assert (ascend.root / "data").stat().st_mode & 0o7777 == 0o1777
    assert ascend.environment["HOME"] == "/data"


def test_it_runs_as_root(ascend: Image) -> None:
    """The devices belong to root on most hosts."""
    assert ascend.config.get("User", "") in ("", "0")
