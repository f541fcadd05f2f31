"""The wheel by itself: in an environment that has nothing else, far from the repository.

`make test-wheel` builds it, installs it, and says in RANKD_WHEEL_VENV where.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import rankd

pytestmark = pytest.mark.wheel

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"


@pytest.fixture(scope="module")
def command() -> str:
    return str(ROOT / os.environ["RANKD_WHEEL_VENV"] / "bin" / "rankd")


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, object]:
    """Run there, where nothing of the repository can be imported by accident."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "RANKD_"))}
    return {"cwd": tmp_path, "env": environment}


@pytest.fixture
def url(command: str, elsewhere: dict[str, object]) -> Iterator[str]:
    with subprocess.Popen(
        [command, "serve", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        **elsewhere,  # type: ignore[call-overload]
    ) as process:
        try:
            yield _address(process)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0
        finally:
            process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    """Where it listens, once it says so."""
    said = ""
    for line in process.stderr or ():
        said += line
        if match := re.search(r"ready at (http://\S+)", line):
            return match[1]
    pytest.fail(f"it does not start:\n{said}")


def test_it_answers_the_curl_of_the_readme(url: str, elsewhere: dict[str, object]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pasted = re.search(
        r"^curl -s \S+/v1/rerank -d '.+?'\n(?=```)", readme, re.DOTALL | re.MULTILINE
    )
    assert pasted

    answer = subprocess.run(
        ["bash", "-euc", pasted[0].replace("http://127.0.0.1:8000", url)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        **elsewhere,  # type: ignore[call-overload]
    ).stdout

    results = json.loads(answer)["results"]
    assert [result["index"] for result in results] == [1, 0]
    assert results[0]["relevance_score"] > 0.9 > 0.1 > results[1]["relevance_score"]


def test_nothing_of_the_repository_is_on_its_path(
    command: str, elsewhere: dict[str, object]
) -> None:
    said = subprocess.run(
        [str(Path(command).with_name("python")), "-c", "import rankd; print(rankd.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        **elsewhere,  # type: ignore[call-overload]
    ).stdout

    assert Path(said.strip()).is_relative_to(Path(command).parents[1])


def test_its_version_is_the_one_of_the_package(command: str, elsewhere: dict[str, object]) -> None:
    said = subprocess.run(
        [command, "--version"],
        capture_output=True,
        text=True,
        check=True,
        **elsewhere,  # type: ignore[call-overload]
    )

    assert rankd.__version__ in said.stdout
    assert {one.name.split("-")[1].removesuffix(".tar.gz") for one in DIST.iterdir()} == {
        rankd.__version__
    }


def test_it_says_that_the_set_up_is_right(command: str, elsewhere: dict[str, object]) -> None:
    subprocess.run([command, "check"], check=True, **elsewhere)  # type: ignore[call-overload]


def test_without_extras_it_is_the_client_alone(elsewhere: dict[str, object]) -> None:
    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, capture_output=True, text=True, check=False, **elsewhere)  # type: ignore[call-overload,no-any-return]

    folder = Path(str(elsewhere["cwd"])) / "client"
    python = str(folder / "bin" / "python")
    [wheel] = DIST.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    installed = run(*pip, "install", "-c", str(ROOT / "constraints.txt"), str(wheel))
    listed = run(*pip, "list", "--format=json", "--exclude", "pip", "--exclude", "setuptools")
    asked = run(python, "-c", "import rankd.client; rankd.client.Client('http://127.0.0.1:9')")
    served = run(str(folder / "bin" / "rankd"), "serve")

    assert installed.returncode == 0, installed.stderr
    assert {package["name"] for package in json.loads(listed.stdout)} <= {
        *("rankd", "httpx", "httpcore", "h11", "anyio", "sniffio", "certifi", "idna"),
        "typing_extensions",
    }
    assert asked.returncode == 0, asked.stderr
    assert served.returncode == 2
    assert "only the client, rankd.client, is installed" in served.stderr
    assert f"install '{wheel}[native]'" in served.stderr


def test_it_holds_the_package_and_nothing_else() -> None:
    [wheel] = DIST.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()

    assert {name.split("/")[0] for name in names} <= {
        "rankd",
        f"rankd-{rankd.__version__}.dist-info",
    }
    pages = {"rankd/ui/static/index.html", "rankd/ui/swagger/swagger-ui-bundle.js"}
    assert {"rankd/py.typed", "rankd/models/builtin/model.safetensors", *pages} <= set(names)


def test_what_pypi_shows_names_the_licence_and_the_readme() -> None:
    [wheel] = DIST.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        metadata = files.read(f"rankd-{rankd.__version__}.dist-info/METADATA").decode()

    assert "License-Expression: Apache-2.0" in metadata
    assert "Qwen3-Reranker" in metadata.partition("\n\n")[2]
    assert {"native", "vllm", "server", "redis"} <= set(
        re.findall(r"^Provides-Extra: (\S+)", metadata, re.MULTILINE)
    )
