"""Sources of settings and their order, tables, and errors that name the nearest setting."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from rankd.config.removed import REMOVED
from rankd.config.settings import Settings
from rankd.config.show import shown
from rankd.config.sources import load, sources
from rankd.config.tables import Alias, Calibration, Platt
from rankd.errors import BadSettings
from support.servers import run


def test_flags_override_environment_which_overrides_files(tmp_path: Path) -> None:
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
        ({}, "batch_tokens = 15", "greater than or equal to 16"),
        ({"RANKD_TRUNCATION": "end"}, "", "truncation = 'end'.*'cut', 'refuse' or 'chunk'"),
        ({}, "max_tokens = 1", "max_tokens = 1: input should be greater than or equal to 128"),
    ],
)
def test_an_error_names_the_wrong_setting(
    environment: dict[str, str], file: str, message: str, tmp_path: Path
) -> None:
    config = tmp_path / "rankd.toml"
    config.write_text(file)

    with pytest.raises(BadSettings, match=message):
        load({}, environment, config)


@pytest.mark.parametrize("name", REMOVED)
def test_a_removed_setting_says_what_to_do_instead(name: str, tmp_path: Path) -> None:
    config = tmp_path / "rankd.toml"
    config.write_text(f"{name} = 1")
    advice = re.escape(f" (removed): {REMOVED[name]}")

    with pytest.raises(BadSettings, match=f"rankd.toml: unknown setting {name}{advice}$"):
        load({}, {}, config)
    with pytest.raises(BadSettings, match=f"^unknown setting RANKD_{name.upper()}{advice}$"):
        load({}, {f"RANKD_{name.upper()}": "1"})
    with pytest.raises(BadSettings, match=f"^unknown setting {name}{advice}$"):
        load({name: "1"}, {})


def test_the_advice_for_a_removed_setting_names_settings_that_exist() -> None:
    assert REMOVED
    assert not set(REMOVED) & set(Settings.model_fields)
    for advice in REMOVED.values():
        named = re.findall(r"\b(?:max_body|max_waiting|batch_file|cache)_\w+", advice)
        assert set(named) <= set(Settings.model_fields), advice


def test_a_variable_names_the_config_file(tmp_path: Path) -> None:
    file = tmp_path / "rankd.toml"
    file.write_text("port = 5")

    assert load({}, {"RANKD_CONFIG": str(file)}).port == 5


def test_a_missing_file_is_an_error_of_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=r"cannot read --config .*: No such file"):
        load({}, {}, tmp_path / "none.toml")


def test_variables_that_kubernetes_sets_for_a_service_are_ignored() -> None:
    links = {
        "RANKD_SERVICE_HOST": "10.0.0.1",
        "RANKD_SERVICE_PORT_HTTP": "80",
        "RANKD_PORT": "tcp://10.0.0.1:80",
        "RANKD_PORT_80_TCP_ADDR": "10.0.0.1",
    }

    assert load({}, links) == Settings()


@pytest.mark.parametrize("file", sorted(Path("configs").glob("*.toml")), ids=lambda f: f.name)
def test_every_shipped_config_loads(file: Path) -> None:
    assert isinstance(load({}, {}, file), Settings)


def test_arguments_of_vllm_are_json_or_a_table(tmp_path: Path) -> None:
    file = tmp_path / "rankd.toml"
    file.write_text("[vllm]\nmax_num_seqs = 7\n")

    for settings in (
        load({}, {}, file),
        load({"vllm_args": '{"max_num_seqs": 7}'}, {}),
        load({}, {"RANKD_VLLM_ARGS": '{"max_num_seqs": 7}'}),
    ):
        assert settings.vllm_args == {"max_num_seqs": 7}


def test_arguments_of_vllm_are_merged_from_every_source(tmp_path: Path) -> None:
    file = tmp_path / "rankd.toml"
    file.write_text("[vllm]\nmax_num_seqs = 7\nseed = 1\n")

    settings = load({"vllm_args": '{"seed": 3}'}, {"RANKD_VLLM_ARGS": '{"block_size": 16}'}, file)

    assert settings.vllm_args == {"max_num_seqs": 7, "block_size": 16, "seed": 3}


@pytest.mark.parametrize("text", ["max_num_seqs=7", "[1]"])
def test_arguments_of_vllm_must_be_an_object(text: str) -> None:
    with pytest.raises(BadSettings, match="vllm_args = "):
        load({"vllm_args": text}, {})


def files(folder: Path, *texts: str) -> list[Path]:
    paths = [folder / f"{number}.toml" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return paths


TABLES = (
    "port = 1\nthreads = 1\n[instructions]\ncode = 'Find code.'\nlaw = 'Old.'\n[vllm]\na = 1",
    "port = 2\n[instructions]\nlaw = 'Find laws.'\n[calibration.code]\nthreshold = 0.4\n"
    "platt = { slope = 1.5, intercept = -0.5 }\n[aliases.'house/law']\npreset = 'law'\n"
    "[key_presets]\nacme = 'code'\n[vllm]\nb = 2",
)


def test_a_later_file_overrides_settings_and_extends_tables(tmp_path: Path) -> None:
    config = files(tmp_path, *TABLES)

    for settings in (
        load({}, {}, config),
        load({}, {"RANKD_CONFIG": os.pathsep.join(map(str, config))}),
    ):
        assert (settings.port, settings.threads) == (2, 1)
        assert settings.instructions == {"code": "Find code.", "law": "Find laws."}
        assert settings.vllm_args == {"a": 1, "b": 2}
        assert settings.calibration == {
            "code": Calibration(threshold=0.4, platt=Platt(slope=1.5, intercept=-0.5))
        }
        assert settings.aliases == {"house/law": Alias(preset="law")}
        assert settings.key_presets == {"acme": "code"}


def test_the_command_line_accepts_several_files(tmp_path: Path) -> None:
    one, two = map(str, files(tmp_path, *TABLES))

    ended = run("serve", "--config", one, "--print-config", "--config", two)

    assert ended.returncode == 0
    assert f"port = 2  # {two}" in ended.stdout
    assert f"[instructions]  # {one}, {two}" in ended.stdout


def test_tables_of_flags_and_variables_are_json_and_replace_those_of_files(
    tmp_path: Path,
) -> None:
    settings = load(
        {"instructions": '{"code": "A flag."}'},
        {"RANKD_CALIBRATION": '{"default": {"threshold": 0.1}}'},
        files(tmp_path, "[instructions]\nlaw = 'A file.'"),
    )

    assert settings.instructions == {"code": "A flag."}
    assert settings.calibration["default"].threshold == 0.1


def test_printed_tables_can_be_loaded_again(tmp_path: Path) -> None:
    # One name that looks like a secret, and one that must be quoted.
    config = files(tmp_path, *TABLES, "[instructions]\n'a.token' = 'Say \"it\".'")
    settings = load({}, {}, config)

    text = shown(settings, sources({}, {}, config))

    assert load({}, {}, files(tmp_path, text)) == settings
    assert f"[instructions]  # {config[0]}, {config[1]}, {config[2]}" in text
    assert "[key_presets]  # default" in shown(Settings(), sources({}, {}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[instructions]\ncode = ' '", r"instructions\.code: an instruction must not be empty"),
        ("[instructions]\ncode = 3", r"instructions\.code: input should be a valid string"),
        ("[instructions]\n'a b' = 'x'", r"instructions\.a b: 'a b' is no name"),
        ("[instructions]\ndefault = 'x'", "'default' is taken"),
        ("[instructions]\ncustom = 'x'", "'custom' is taken"),
        (
            "[calibration.coed]\nthreshold = 0.5\n[instructions]\ncode = 'x'",
            r"calibration: 'coed' is neither in \[instructions\] nor 'default'; "
            r"did you mean code\?",
        ),
        ("[calibration.default]", "default has neither a threshold nor platt"),
        ("[calibration.default]\nthreshold = 2", r"calibration\.default\.threshold: .* equal to 1"),
        (
            "[calibration.default]\ntreshold = 0.2",
            r"unknown setting calibration\.default\.treshold; did you mean threshold\?",
        ),
        (
            "[calibration.default]\nplatt = { slope = 0, intercept = 1 }",
            r"calibration\.default\.platt\.slope: .* greater than 0",
        ),
        (
            "[calibration.default]\nplatt = { slope = 1, intercept = nan }",
            r"calibration\.default\.platt\.intercept: .* finite",
        ),
        (
            "[instructions]\ncode = 'x'\n[calibration.code]\nthreshold = 0.2\ninstruction = 'y'",
            "code was measured with another text: 'y', not 'x'",
        ),
        ("[aliases.x]\npreset = 'defualt'", r"aliases: x: 'defualt' is .* did you mean default\?"),
        (
            "[aliases.x]\ntruncation = 'cat'",
            r"aliases\.x\.truncation: .*'cut', 'refuse' or 'chunk'",
        ),
        ("[aliases.x]\nscore_treshold = 1", r"did you mean score_threshold\?"),
        (
            "[aliases.x]\ntruncation = 'cut'\nmax_chunks_per_doc = 2",
            "max_chunks_per_doc means nothing with truncation = 'cut'",
        ),
        (
            "[aliases.x]\ntruncation = 'refuse'\ntruncation_side = 'left'",
            "truncation_side means nothing with truncation = 'refuse'",
        ),
        ("[key_presets]\nacme = 'code'", "key_presets: acme: 'code' is neither"),
        (
            "[aliases.x]\nscore_threshold = 'high'",
            r"^aliases\.x\.score_threshold: input should be a valid number, not 'high'$",
        ),
        ("[aliases.x]\nscore_threshold = 3", r"less than or equal to 1, not 3$"),
        ("[aliases]\nx = 'code'", r"^aliases\.x: input should be a table, not 'code'$"),
        ("[calibration]\ndefault = 0.3", r"^calibration\.default: .* a table, not 0.3$"),
    ],
)
def test_an_error_names_the_wrong_key_of_a_table(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match=message):
        load({}, {}, files(tmp_path, text))


def test_the_tables_of_the_docs_load(tmp_path: Path) -> None:
    page = Path("docs/instructions.md").read_text(encoding="utf-8")
    text = page.split("```toml\n")[1].split("```")[0]

    settings = load({}, {}, files(tmp_path, text))

    assert settings.aliases["acme/code-reranker"].truncation_policy == "chunk"
    assert settings.calibration["code"].platt == Platt(slope=1.1, intercept=-0.3)
    assert settings.key_presets == {"legal-team": "laws"}


def test_an_instruction_is_found_by_name() -> None:
    settings = Settings(instructions={"code": "Find code."})

    assert settings.instruction_named("code") == "Find code."
    assert settings.instruction_named("default") == settings.instruction
    with pytest.raises(BadSettings, match=r"'cod' is neither .*; did you mean code\?"):
        settings.instruction_named("cod")
