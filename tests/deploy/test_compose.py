"""docker/compose*.yaml: valid, and true of the files, settings and ports that they name.

No container is started here.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_files import DOCKER, FILES, ROOT, binds, read, variables

from rankd.config.settings import Settings
from rankd.config.sources import CONFIG_VARIABLE, ENV_PREFIX, load
from support.programs import missing, program

pytestmark = pytest.mark.deploy


def services(part: str = "") -> list[Any]:
    """All whose name holds this."""
    return [
        pytest.param(service, id=f"{file.name}-{name}")
        for file in FILES
        for name, service in read(file)["services"].items()
        if part in name
    ]


def seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)s", text)
    assert found
    return int(found[1])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
@pytest.mark.parametrize("profile", ["cpu", "cuda"])
def test_compose_takes_it(file: Path, profile: str) -> None:
    command = _compose()
    ended = subprocess.run(
        [*command, "-f", str(file), "--profile", profile, "config"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    expected = {
        name
        for name, service in read(file)["services"].items()
        if profile in service.get("profiles", [profile])
    }
    # Debian's older program shows those of other profiles, too.
    assert expected <= set(yaml.safe_load(ended.stdout)["services"])


def _compose() -> list[str]:
    """Docker's plugin, or Debian's program."""
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        docker = None
    if docker:
        return [docker, "compose"]
    if shutil.which("docker-compose") is None:
        missing("needs docker compose")
    return ["docker-compose"]


@pytest.mark.parametrize("service", services())
def test_what_is_mounted_is_there(service: dict[str, Any]) -> None:
    gone = [str(path) for path in binds(service).values() if not path.exists()]

    assert gone == []


@pytest.mark.parametrize("service", services())
def test_volumes_that_are_named_are_declared(service: dict[str, Any]) -> None:
    declared = {name for file in FILES for name in read(file)["volumes"]}
    named = {volume.split(":")[0] for volume in service.get("volumes", [])}

    assert {name for name in named if name[0] not in "./"} <= declared


@pytest.mark.parametrize("service", services("rankd"))
def test_the_settings_of_a_container_load(service: dict[str, Any]) -> None:
    image = Path(ROOT / service["build"]["dockerfile"]).read_text()
    environment = {
        **dict(re.findall(rf"({ENV_PREFIX}\w+)=(\S+)", re.sub(r"#.*", "", image))),
        **variables(service),
    }
    command, *flags = service["command"]
    assert command == "serve"
    inside = [*flags[1::2], *filter(None, [environment.pop(CONFIG_VARIABLE, None)])]
    files = [binds(service)[name] for name in inside]

    settings = load({}, environment, files)

    assert set(flags[::2]) <= {"--config"}
    assert len(files) == 1
    assert settings.port == Settings().port
    assert f"EXPOSE {settings.port}" in image
    assert settings.host in ("0.0.0.0", "127.0.0.1")
    assert service.get("network_mode") == "host" or settings.host == "0.0.0.0"
    stop = seconds(service["stop_grace_period"])
    assert stop >= settings.drain_seconds + settings.drain_delay_seconds + 10


@pytest.mark.parametrize("service", services("rankd"))
def test_all_that_a_container_writes_is_in_a_volume(service: dict[str, Any]) -> None:
    image = Path(ROOT / service["build"]["dockerfile"]).read_text()
    written = re.findall(r"(?:HOME|CACHE\w*|WORKSPACE_BASE)=(\S+)", image)

    assert written
    assert [path for path in written if not path.startswith("/data")] == []
    assert "data:/data" in service["volumes"]


@pytest.mark.parametrize("service", services("rankd"))
def test_health_is_what_the_server_says_of_itself(service: dict[str, Any]) -> None:
    image = Path(ROOT / service["build"]["dockerfile"]).read_text()
    health = service["healthcheck"]

    assert health["test"] == ["CMD", "rankd", "probe"]
    assert f"--start-period={health['start_period']}" in image


def test_nginx_and_prometheus_look_for_the_name_and_port_that_the_servers_have() -> None:
    running = read(DOCKER / "compose.yaml")["services"]
    servers = [service for name, service in running.items() if name.startswith("rankd")]
    upstream = (DOCKER / "nginx-upstream.conf").read_text()
    [job] = yaml.safe_load((DOCKER / "prometheus.yml").read_text())["scrape_configs"]
    [asked] = job["dns_sd_configs"]

    assert servers
    assert all(service["networks"]["default"]["aliases"] == ["rankd"] for service in servers)
    address = f"rankd:{Settings().port}"
    assert set(re.findall(r"^\s*server (\S+)", upstream, re.MULTILINE)) == {address}
    assert f"{asked['names'][0]}:{asked['port']}" == address


def test_upstreams_differ_only_in_where_the_servers_are() -> None:
    def rest(file: Path) -> list[str]:
        lines = (re.sub(r"\s*#.*", "", line).strip() for line in file.read_text().splitlines())
        return [line for line in lines if line and not re.match("server |resolver ", line)]

    assert rest(DOCKER / "nginx-upstream.conf") == rest(ROOT / "deploy/nginx/upstream.conf")


def test_ports_are_of_this_machine_only_and_none_is_taken_twice() -> None:
    running = read(DOCKER / "compose.yaml")["services"]
    ports = [
        port.rsplit(":", 2) for service in running.values() for port in service.get("ports", [])
    ]

    assert {address for address, _, _ in ports} == {"127.0.0.1"}
    assert len({outside for _, outside, _ in ports}) == len(ports) == 3
    assert "ports" not in running["rankd-cpu"], "nginx is the way in"


def test_prometheus_can_read_its_file(tmp_path: Path) -> None:
    promtool = program("promtool")
    shutil.copy(DOCKER / "prometheus.yml", tmp_path)
    shutil.copytree(ROOT / "deploy" / "prometheus" / "rules", tmp_path / "rules")

    ended = subprocess.run(
        [promtool, "check", "config", str(tmp_path / "prometheus.yml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    assert "SUCCESS" in ended.stdout


@pytest.mark.parametrize(
    "page", ["README.zh-CN.md", "docs/ascend.md", "docs/zh/ascend.md", "docs/deployment.md"]
)
def test_ascend_gets_the_devices_and_the_driver_that_docker_run_gives_it(page: str) -> None:
    [service] = read(DOCKER / "compose.ascend.yaml")["services"].values()
    text = (ROOT / page).read_text(encoding="utf-8")
    devices = re.findall(r"--device (/dev/\w+) ", text)
    driver = re.findall(r"-v (/(?:usr|etc)\S+)", text)

    assert devices
    assert service["devices"] == devices
    assert [volume for volume in service["volumes"] if volume.startswith("/")] == driver
    assert f"--net={service['network_mode']}" in text
    assert "--shm-size=1g" in text
    assert service["shm_size"] == "1gb"
