"""tools/setup.sh, which `make serve` begins with, with stand-ins for python3 and uv."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.terminals import on_terminal

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists(),
    reason="tests what happens without a GPU",
)

# Stands for python3, and for the python of an environment. Does as much as the script needs.
PYTHON = r"""#!/bin/sh
echo "python $*" >>"$LOG"
case "$*" in
*importlib.metadata*) exit "${WITHOUT_TORCH:-1}" ;;
-c*) exit "${TOO_OLD:-0}" ;;
--version) echo "Python 3.9.2" ;;
"-m venv "*)
  mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" && cp "$0" "$3/bin/python"
  [ -z "$WITHOUT_VENV" ] || { echo "ensurepip is not available" >&2; exit 1; } ;;
"-m pip --version" | "-m ensurepip"*) [ -z "$WITHOUT_PIP" ] || exit 1 ;;
"-m pip config list") echo "$PIP_CONFIG" ;;
*"--index-url"*) exit "${TORCH_STATUS:-0}" ;;
*"--editable"*) [ -z "$SLOW" ] || sleep 60; exit "${INSTALL_STATUS:-0}" ;;
esac
"""
UV = r"""#!/bin/sh
echo "uv $*" >>"$LOG"
case "$1" in
venv)
  for last; do :; done
  mkdir -p "$last/bin" && touch "$last/pyvenv.cfg" && cp "$PYTHON" "$last/bin/python" ;;
esac
"""


@dataclass
class Checkout:
    """A folder with what the script reads, and the programs that it calls."""

    folder: Path
    calls: list[str] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.folder),
            "LOG": str(self.folder / "log"),
            "PYTHON": str(self.folder / "bin" / "python3"),
        }

    @property
    def venv(self) -> Path:
        return self.folder / ".venv"

    def add_program(self, name: str, text: str) -> None:
        file = self.folder / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        file.chmod(0o755)

    def command(self) -> list[str]:
        return [str(self.folder / "tools" / "setup.sh"), ".venv", "native"]

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script; its calls of python and uv are in `calls`."""
        (self.folder / "log").write_text("")
        ended = subprocess.run(
            self.command(),
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.calls = (self.folder / "log").read_text().splitlines()
        return ended

    def installs(self) -> list[str]:
        """The commands that install something, from the requirement's options on."""
        return [
            f"{line.split()[0]} {line.partition('install ')[2]}"
            for line in self.calls
            if " install " in line
        ]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "setup.sh", tmp_path / "tools" / "setup.sh")
    (tmp_path / "constraints.txt").write_text("torch==2.13.0\n")
    made = Checkout(tmp_path)
    made.add_program("python3", PYTHON)
    return made


def test_without_a_gpu_the_cpu_build_of_torch_is_installed_first(checkout: Checkout) -> None:
    ended = checkout.run()

    assert ended.returncode == 0, ended.stderr
    cpu, rest = checkout.installs()
    assert "--index-url https://download.pytorch.org/whl/cpu torch==2.13.0" in cpu
    assert rest.endswith("-c constraints.txt --editable .[native]")
    assert "no GPU or NPU found" in ended.stderr
    assert "about 300 MB" in ended.stderr
    assert "--quiet" in rest  # There is no terminal here.


def test_a_terminal_shows_what_pip_does(checkout: Checkout) -> None:
    shown = on_terminal(program=checkout.command(), environment=checkout.environment)

    calls = (checkout.folder / "log").read_text()
    assert shown.status == 0
    assert "installing rankd[native] into .venv with pip" in shown.text
    assert "--editable" in calls
    assert "--quiet" not in calls


def test_a_mirror_of_the_cpu_builds_can_be_named(checkout: Checkout) -> None:
    checkout.run(TORCH_INDEX="https://mirror.example/cpu")

    assert "--index-url https://mirror.example/cpu torch" in checkout.installs()[0]


def test_without_the_index_of_the_cpu_builds_the_usual_one_is_used(checkout: Checkout) -> None:
    ended = checkout.run(TORCH_STATUS="1")

    assert ended.returncode == 0
    assert "PyTorch comes from your usual index, perhaps with CUDA's libraries" in ended.stderr
    assert checkout.installs()[-1].endswith("--editable .[native]")


@pytest.mark.parametrize("program", ["nvidia-smi", "npu-smi"])
def test_with_a_device_torch_comes_from_the_usual_index(checkout: Checkout, program: str) -> None:
    checkout.add_program(program, "#!/bin/sh\n")

    ended = checkout.run()

    assert len(checkout.installs()) == 1
    assert "about 3 GB" in ended.stderr


def test_torch_that_is_there_is_kept(checkout: Checkout) -> None:
    ended = checkout.run(WITHOUT_TORCH="0")

    assert len(checkout.installs()) == 1
    assert "GB" not in ended.stderr


def test_an_environment_without_pip_is_removed_and_the_next_run_succeeds(
    checkout: Checkout,
) -> None:
    failed = checkout.run(WITHOUT_VENV="yes")
    assert failed.returncode == 1
    assert "ensurepip is not available" in failed.stderr
    assert not checkout.venv.exists()

    assert checkout.run().returncode == 0
    assert checkout.venv.exists()


def test_an_unfinished_environment_of_an_earlier_run_is_made_again(checkout: Checkout) -> None:
    checkout.run()
    checkout.add_program("python3", PYTHON.replace("WITHOUT_PIP", "NEVER"))

    ended = checkout.run(WITHOUT_PIP="yes")

    assert ended.returncode == 0
    assert ".venv is unfinished and empty: making it again" in ended.stderr


def test_an_environment_without_pip_that_holds_packages_is_not_touched(
    checkout: Checkout,
) -> None:
    checkout.run()
    kept = checkout.venv / "lib" / "python3.12" / "site-packages" / "something.py"
    kept.parent.mkdir(parents=True)
    kept.touch()

    ended = checkout.run(WITHOUT_PIP="yes")

    assert ended.returncode == 1
    assert ".venv has no pip; remove it, or choose another folder" in ended.stderr
    assert kept.exists()


def test_a_failed_first_installation_leaves_no_environment(checkout: Checkout) -> None:
    ended = checkout.run(INSTALL_STATUS="1")

    assert ended.returncode == 1
    assert "removing the unfinished .venv" in ended.stderr
    assert not checkout.venv.exists()


def test_a_failed_update_keeps_the_environment(checkout: Checkout) -> None:
    checkout.run()

    ended = checkout.run(INSTALL_STATUS="1")

    assert ended.returncode == 1
    assert checkout.venv.exists()


def test_ctrl_c_leaves_no_environment(checkout: Checkout) -> None:
    # pytest may run in the background of a shell, which ignores Ctrl-C there.
    process = subprocess.Popen(
        ["env", "--default-signal=INT", *checkout.command()],
        env=checkout.environment | {"SLOW": "yes"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    log = checkout.folder / "log"
    while not (log.exists() and "--editable" in log.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 130
    assert "rankd: interrupted" in errors
    assert not checkout.venv.exists()


def test_an_old_python_is_named_with_the_way_to_another(checkout: Checkout) -> None:
    ended = checkout.run(TOO_OLD="1", GOAL="test")

    assert ended.returncode == 1
    assert "Python >=3.11,<3.15 is needed, and " in ended.stderr
    assert "is Python 3.9.2. Name another one: make test PYTHON=python3.12" in ended.stderr


def test_uv_installs_when_it_is_there(checkout: Checkout) -> None:
    checkout.add_program("uv", UV)

    ended = checkout.run()

    cpu, rest = checkout.installs()
    assert ended.returncode == 0
    assert cpu.startswith("uv --python .venv/bin/python")
    assert rest.startswith("uv --python .venv/bin/python")


@pytest.mark.parametrize("broken", ["TOO_OLD", "WITHOUT_VENV"])
def test_uv_makes_the_environment_when_python_cannot(checkout: Checkout, broken: str) -> None:
    checkout.add_program("uv", UV)

    ended = checkout.run(**{broken: "1"})

    assert ended.returncode == 0, ended.stderr
    assert "uv venv --seed --python >=3.11,<3.15 .venv" in checkout.calls


def test_pip_installs_beside_uv_where_only_pip_knows_the_index(checkout: Checkout) -> None:
    checkout.add_program("uv", UV)

    by_pip = checkout.run(PIP_CONFIG="global.index-url='https://mirror.example/simple'")
    pip_calls = checkout.installs()
    checkout.run(
        PIP_CONFIG=":env:.index-url='https://mirror.example/simple'",
        UV_DEFAULT_INDEX="https://mirror.example/simple",
    )

    assert by_pip.returncode == 0
    assert [call.split()[0] for call in pip_calls] == ["python", "python"]
    assert [call.split()[0] for call in checkout.installs()] == ["uv", "uv"]
