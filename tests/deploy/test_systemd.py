"""deploy/systemd, judged by systemd's own programs; no unit is started here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rankd.config.settings import Settings
from rankd.config.sources import ENV_PREFIX, load
from support.programs import program

pytestmark = pytest.mark.deploy

FILES = Path(__file__).parents[2] / "deploy" / "systemd"
UNIT = FILES / "rankd@.service"
DROP_INS = sorted((FILES / "rankd@.service.d").glob("*.conf"))


def put(folder: Path, *drop_ins: Path) -> Path:
    """The unit, with a program that exists on this machine."""
    text = UNIT.read_text()
    assert "ExecStart=/opt/rankd/bin/rankd serve " in text
    unit = folder / UNIT.name
    unit.write_text(text.replace("/opt/rankd/bin/rankd", sys.executable))
    beside = folder / f"{UNIT.name}.d"
    beside.mkdir()
    for file in drop_ins:
        shutil.copy(file, beside)
    return unit


def said(*arguments: str | Path) -> str:
    """What a program says, of which it thinks nothing bad."""
    ended = subprocess.run(
        [program(str(arguments[0])), *map(str, arguments[1:])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("drop_ins", [[], DROP_INS], ids=["alone", "with all drop-ins"])
def test_systemd_has_nothing_to_say_about_the_unit(tmp_path: Path, drop_ins: list[Path]) -> None:
    unit = put(tmp_path, *drop_ins)

    assert said("systemd-analyze", "verify", unit.with_name("rankd@8001.service")) == ""


def test_systemd_would_say_what_is_wrong(tmp_path: Path) -> None:
    unit = put(tmp_path)
    unit.write_text(unit.read_text().replace("KillMode=mixed", "KillMode=soft"))

    assert "kill mode" in said("systemd-analyze", "verify", unit.with_name("rankd@8001.service"))


@pytest.mark.parametrize(
    ("drop_ins", "most"), [([], 1.5), (DROP_INS, 2.0)], ids=["alone", "with all drop-ins"]
)
def test_little_is_exposed(tmp_path: Path, drop_ins: list[Path], most: float) -> None:
    unit = put(tmp_path, *drop_ins)

    judged = said("systemd-analyze", "security", "--offline=true", "--no-pager", unit)
    found = re.search(r"Overall exposure level for .*: ([\d.]+) ", judged)

    assert found, judged
    print(f"\nexposure {found[1]} of 10, at most {most}")  # noqa: T201
    assert float(found[1]) <= most


def test_the_user_and_the_folder_can_be_made() -> None:
    users = said("systemd-sysusers", "--dry-run", FILES / "rankd.sysusers")

    assert "ignoring" not in users  # What it says of a file that it does not find.


def settings_of(file: Path) -> dict[str, str]:
    """`Name=value` lines of a unit, the last of each."""
    return dict(re.findall(r"^(\w+)=(.*)$", file.read_text(), re.MULTILINE))


@pytest.mark.parametrize("file", [UNIT, *DROP_INS], ids=lambda file: file.name)
def test_a_stop_has_more_time_than_the_drain(file: Path) -> None:
    given, defaults = settings_of(file), Settings()
    seconds = int(given.get("TimeoutStopSec", settings_of(UNIT)["TimeoutStopSec"]))

    assert seconds >= defaults.drain_seconds + defaults.drain_delay_seconds + 10


def test_flags_and_variables_are_those_of_rankd() -> None:
    texts = [file.read_text() for file in (UNIT, *DROP_INS)]
    named = {name for text in texts for name in re.findall(rf"{ENV_PREFIX}([A-Z_]+)=?", text)}
    flags = re.findall(r"--([\w-]+)", settings_of(UNIT)["ExecStart"])

    assert {name.lower() for name in named} <= {*Settings.model_fields}
    assert {"api_keys_file", "batch_dir"} <= {name.lower() for name in named}
    assert flags == ["config", "port"]
    assert load({"port": "8001"}, {}).port == 8001
