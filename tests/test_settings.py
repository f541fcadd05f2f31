"""Every knob once; a name nobody knows is an error that names the nearest."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankd.errors import BadSettings
from rankd.settings import Settings, load


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "rankd.toml"
    file.write_text("port = 1\nthreads = 1\nmax_documents = 1\n")
    environment = {"RANKD_PORT": "2", "RANKD_THREADS": "2"}

    settings = load({"port": "3"}, environment, file)

    assert (settings.port, settings.threads, settings.max_documents) == (3, 2, 1)
    assert settings.host == Settings().host


@pytest.mark.parametrize(
    ("environment", "file", "message"),
    [
        ({"RANKD_PROT": "1"}, "", r"unknown setting RANKD_PROT; did you mean RANKD_PORT\?"),
        ({}, "self_chek = 'off'", r"unknown setting self_chek; did you mean self_check\?"),
        ({"RANKD_PORT": "http"}, "", "port = 'http'"),
        ({"RANKD_SELF_CHECK": "maybe"}, "", "self_check = 'maybe'.*'strict', 'warn' or 'off'"),
        ({}, "port = 1\nport = 2", "is not valid TOML"),
        ({}, "chunk_tokens = 99\nchunk_overlap = 50", "chunk_overlap = 50: .* at most 49, half of"),
        ({}, "chunk_tokens = 15", "greater than or equal to 16"),
        ({"RANKD_TRUNCATION": "end"}, "", "truncation = 'end'.*'cut', 'refuse' or 'chunk'"),
        ({}, "max_tokens = 1", "max_tokens = 1: input should be greater than or equal to 128"),
    ],
)
def test_a_wrong_setting_is_named(
    environment: dict[str, str], file: str, message: str, tmp_path: Path
) -> None:
    config = tmp_path / "rankd.toml"
    config.write_text(file)

    with pytest.raises(BadSettings, match=message):
        load({}, environment, config)


def test_a_container_names_its_file_by_variable(tmp_path: Path) -> None:
    file = tmp_path / "rankd.toml"
    file.write_text("port = 5")

    assert load({}, {"RANKD_CONFIG": str(file)}).port == 5


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"cannot read --config .*: No such file"):
        load({}, {}, tmp_path / "none.toml")


def test_what_kubernetes_adds_for_a_service_named_rankd_is_not_ours() -> None:
    links = {
        "RANKD_SERVICE_HOST": "10.0.0.1",
        "RANKD_SERVICE_PORT_HTTP": "80",
        "RANKD_PORT": "tcp://10.0.0.1:80",
        "RANKD_PORT_80_TCP_ADDR": "10.0.0.1",
    }

    assert load({}, links) == Settings()


@pytest.mark.parametrize("file", sorted(Path("configs").glob("*.toml")), ids=lambda f: f.name)
def test_every_config_that_ships_loads(file: Path) -> None:
    assert isinstance(load({}, {}, file), Settings)


def test_arguments_of_vllm_come_as_json_or_as_a_table(tmp_path: Path) -> None:
    file = tmp_path / "rankd.toml"
    file.write_text("[vllm]\nmax_num_seqs = 7\n")

    for settings in (
        load({}, {}, file),
        load({"vllm_args": '{"max_num_seqs": 7}'}, {}),
        load({}, {"RANKD_VLLM_ARGS": '{"max_num_seqs": 7}'}),
    ):
        assert settings.vllm_args == {"max_num_seqs": 7}


@pytest.mark.parametrize("text", ["max_num_seqs=7", "[1]"])
def test_arguments_of_vllm_that_are_no_object_are_a_sentence(text: str) -> None:
    with pytest.raises(BadSettings, match="vllm_args = "):
        load({"vllm_args": text}, {})
