"""The command `rankd calibrate`: table, settings, JSON figures and picture."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import httpx
import pytest

from rankd.client import Client
from rankd.config.settings import Settings
from rankd.models.calibration_tables import FOLDER, read_table
from support.layouts import state
from support.servers import serving
from support.typed import run

TRIPLES = Path(__file__).parents[2] / "training/eval/triples.jsonl"
INSTRUCTION = Settings().instruction

Row = dict[str, Any]


@pytest.fixture(scope="module")
def pairs() -> list[Row]:
    """The project's own triples, on which the built-in model was not trained."""
    rows = []
    for line in TRIPLES.read_text(encoding="utf-8").splitlines():
        triple = json.loads(line)
        for text in (triple["right"], *triple["wrong"]):
            relevant = text == triple["right"]
            rows.append({"query": triple["query"], "document": text, "relevant": relevant})
    return rows


def calibrate(folder: Path, rows: list[Row], *arguments: str, status: int = 0) -> Row:
    """Run the command; returns its output and the content of its files."""
    file, figures, settings = (folder / name for name in ("pairs.jsonl", "c.json", "c.toml"))
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ended = run(
        "calibrate", str(file), "--json", str(figures), "--write", str(settings), *arguments
    )
    assert ended.returncode == status, ended.stderr
    return {
        "output": ended.stdout,
        "figures": json.loads(figures.read_text()),
        "toml": tomllib.loads(settings.read_text()),
    }


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory, pairs: list[Row]) -> Row:
    """The result of the built-in model, with Platt scaling and a picture."""
    folder = tmp_path_factory.mktemp("result")
    picture = folder / "scores.svg"
    return calibrate(folder, pairs, "--platt", "--picture", str(picture)) | {"picture": picture}


def test_the_built_in_model_gets_a_threshold_with_a_good_f1(result: Row) -> None:
    [one] = result["figures"]["instructions"]
    assert (one["name"], one["pairs"], one["relevant"]) == ("default", 150, 50)
    assert one["threshold"]["f1"] > 0.75
    assert one["held_out"]["f1"] <= one["threshold"]["f1"]
    assert len(one["reliability"]["bins"]) == 10
    assert sum(row["pairs"] for row in one["reliability"]["bins"]) == 150
    assert 0 < one["reliability"]["brier"] < 0.15
    [row] = [line for line in result["output"].splitlines() if line.startswith("default ")][:1]
    assert row.split()[1:4] == ["150", "50", f"{one['threshold']['value']:.7g}"]


def test_the_settings_contain_model_and_instruction(result: Row) -> None:
    [one] = result["figures"]["instructions"]

    written = result["toml"]["calibration"]["default"]

    assert set(result["toml"]) == {"calibration"}
    assert written == {
        "threshold": one["threshold"]["value"],
        "platt": pytest.approx(one["platt"], rel=1e-5),
        "model": "builtin",
        "instruction": INSTRUCTION,
    }
    assert written["platt"]["slope"] > 0


@pytest.mark.slow
def test_the_threshold_reaches_the_wanted_precision(
    tmp_path: Path, pairs: list[Row], result: Row
) -> None:
    best = result["figures"]["instructions"][0]["threshold"]

    [one] = calibrate(tmp_path, pairs, "--precision", "0.97")["figures"]["instructions"]

    strict = one["threshold"]
    assert strict["precision"] >= 0.97 > best["precision"]
    assert strict["recall"] < best["recall"]
    assert strict["value"] > best["value"]


@pytest.mark.slow
def test_an_unreachable_precision_is_reported_and_no_threshold_is_written(tmp_path: Path) -> None:
    rows = [
        {"query": "capital of China", "document": "Beijing is the capital.", "relevant": False},
        {"query": "capital of China", "document": "Lions hunt at night.", "relevant": True},
    ]

    result = calibrate(tmp_path, rows, "--precision", "0.9", "--platt", status=1)

    assert "no threshold keeps a precision of 0.9" in result["output"]
    assert "scores rank the wrong way round; Platt scaling is not written" in result["output"]
    assert result["toml"] == {}

    best = calibrate(tmp_path, rows, "--platt")
    assert set(best["toml"]["calibration"]["default"]) == {"threshold", "model", "instruction"}


def test_platt_scaling_is_measured_on_held_out_queries(result: Row) -> None:
    [one] = result["figures"]["instructions"]

    before, after = one["reliability"], one["platt_held_out"]

    assert before["brier"] != after["brier"]
    row = result["output"].split("Platt ")[1].splitlines()[1].split()
    assert row[3:] == [
        f"{figure:.3f}" for figure in (before["brier"], after["brier"], before["ece"], after["ece"])
    ]


@pytest.mark.slow
def test_each_instruction_has_its_own_threshold(tmp_path: Path, pairs: list[Row]) -> None:
    other, third = "Given a question, find a passage about something else", 'Find "it"'
    rows = pairs + [row | {"instruction": other} for row in pairs[:60]]
    rows += [row | {"instruction": INSTRUCTION} for row in pairs[:3]]
    rows += [row | {"instruction": third} for row in pairs[60:90]]

    result = calibrate(tmp_path, rows)

    named = {one["name"]: one for one in result["figures"]["instructions"]}
    assert {name: one["pairs"] for name, one in named.items()} == {
        "default": 153,
        "instruction-1": 60,
        "instruction-2": 30,
    }
    assert result["toml"]["instructions"] == {"instruction-1": other, "instruction-2": third}
    assert result["toml"]["calibration"]["instruction-1"]["instruction"] == other
    assert named["instruction-1"]["reliability"] != named["default"]["reliability"]


def test_grades_from_relevant_from_are_relevant(tmp_path: Path) -> None:
    rows = [
        {"query": "q", "document": f"document {grade}", "relevant": grade} for grade in range(4)
    ]

    def relevant(*arguments: str) -> int:
        result = calibrate(tmp_path, rows, "--engine", "fake", *arguments)
        return int(result["figures"]["instructions"][0]["relevant"])

    assert relevant() == 3
    assert relevant("--relevant-from", "2") == 2


def test_settings_are_printed_without_write(pairs: list[Row]) -> None:
    file = "".join(json.dumps(row) + "\n" for row in pairs)

    ended = run("calibrate", "-", "--engine", "fake", stdin=file)

    assert ended.returncode == 0, ended.stderr
    shown = tomllib.loads(ended.stdout[ended.stdout.index("# Written by") :])
    assert 0 <= shown["calibration"]["default"]["threshold"] < 1


@pytest.mark.slow
def test_a_server_gets_the_threshold_of_the_local_engine(
    tmp_path: Path, pairs: list[Row], result: Row
) -> None:
    with serving() as server:
        remote = calibrate(tmp_path, pairs, "--platt", "--url", server.url)
        with Client(server.url) as client:
            scores = client.score(
                [row["query"] for row in pairs], [row["document"] for row in pairs]
            ).scores

    here, there = (one["figures"]["instructions"][0] for one in (result, remote))
    assert there["threshold"] == here["threshold"]
    assert there["platt"] == pytest.approx(here["platt"], rel=1e-3)
    # The server's model and instruction are unknown.
    assert set(remote["toml"]["calibration"]["default"]) == {"threshold", "platt"}
    # The threshold has the reported effect on the server's scores.
    kept = [
        row["relevant"]
        for row, score in zip(pairs, scores, strict=True)
        if score >= there["threshold"]["value"]
    ]
    assert sum(kept) / len(kept) == pytest.approx(there["threshold"]["precision"])
    assert sum(kept) / 50 == pytest.approx(there["threshold"]["recall"])


@pytest.mark.slow
def test_a_server_with_the_written_settings_has_the_reported_precision_and_recall(
    tmp_path: Path, pairs: list[Row]
) -> None:
    presets = tmp_path / "presets.toml"
    presets.write_text('[instructions]\nsame = "Find texts on the same subject"\n')
    rows = pairs + [row | {"preset": "same"} for row in pairs[:60]]

    result = calibrate(tmp_path, rows, "--platt", "--config", str(presets))
    written = str(tmp_path / "c.toml")
    with serving("--config", str(presets), "--config", written) as server:
        kept = {name: _kept(server.url, some, name) for name, some in _by_preset(rows).items()}

    named = {one["name"]: one for one in result["figures"]["instructions"]}
    assert set(named) == set(kept) == {"default", "same"}
    assert named["same"]["threshold"] != named["default"]["threshold"]
    for name, results in kept.items():
        reported = named[name]["threshold"]
        relevant = [one["relevant"] for one in results]
        assert sum(relevant) / len(relevant) == pytest.approx(reported["precision"])
        assert sum(relevant) / named[name]["relevant"] == pytest.approx(reported["recall"])
        results.sort(key=lambda one: one["relevance_score"])
        probabilities = [one["normalized_score"] for one in results]
        assert probabilities == sorted(probabilities)
        assert 0 < probabilities[0] < probabilities[-1] <= 1


def _by_preset(rows: list[Row]) -> dict[str, list[Row]]:
    presets: dict[str, list[Row]] = {row.get("preset", "default"): [] for row in rows}
    for row in rows:
        presets[row.get("preset", "default")].append(row)
    return presets


def _kept(url: str, rows: list[Row], preset: str) -> list[Row]:
    """The results above the threshold, with their judgments."""
    kept: list[Row] = []
    for query in dict.fromkeys(row["query"] for row in rows):
        judged = [row for row in rows if row["query"] == query]
        documents = [row["document"] for row in judged]
        body = {"query": query, "documents": documents, "return_details": True, "preset": preset}
        reply = httpx.post(f"{url}/v1/rerank", json=body).json()
        assert reply["meta"]["below_threshold"] == len(judged) - len(reply["results"])
        kept += [one | {"relevant": judged[one["index"]]["relevant"]} for one in reply["results"]]
    return kept


def test_the_picture_shows_both_classes_and_the_threshold(result: Row, tmp_path: Path) -> None:
    drawn = result["picture"].read_bytes()

    ElementTree.fromstring(drawn)
    for label in (b"not relevant (100)", b"relevant (50)", b"threshold", b"Platt, held out"):
        assert label in drawn
    assert f"picture: {result['picture']}" in result["output"]


def test_the_same_pairs_give_the_same_picture(tmp_path: Path) -> None:
    rows = [{"query": "q", "document": f"q {n}", "relevant": n % 2} for n in range(10)]
    vector, dots = tmp_path / "scores.svg", tmp_path / "scores.png"

    drawn = set()
    for _ in range(2):
        calibrate(tmp_path, rows, "--engine", "fake", "--picture", str(vector))
        drawn.add(vector.read_bytes())
    calibrate(tmp_path, rows, "--engine", "fake", "--picture", str(dots))

    assert len(drawn) == 1
    assert dots.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_help_is_shown_without_loading_scikit_learn() -> None:
    program = (
        "import atexit, sys; from rankd.cli.main import main;"
        "atexit.register(lambda: print('loaded:', 'sklearn' in sys.modules));"
        "main(['calibrate', '--help'])"
    )

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert "--precision" in ended.stdout
    assert ended.stdout.endswith("loaded: False\n")


@pytest.mark.parametrize(
    ("module", "complaint"),
    [
        ("sklearn", "rankd calibrate needs scikit-learn: "),
        ("matplotlib", "--picture needs matplotlib: "),
    ],
)
def test_a_missing_package_is_an_error_before_anything_is_read(
    module: str, complaint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    ended = run("calibrate", "/no/such/pairs.jsonl", "--picture", str(tmp_path / "scores.svg"))

    assert ended.returncode == 2
    assert ended.stderr.startswith(f"rankd: {complaint}")
    assert ended.stderr.endswith("[eval]'\n")


GOOD = '{"query": "q", "document": "d", "relevant": true}'


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"query": "q"', "-:2 is not JSON"),
        ('"text"', '-:2 must be a JSON object, not "text"'),
        ('{"document": "d", "relevant": 1}', "-:2: has no 'query'"),
        ('{"query": "q", "relevant": 1}', "-:2: has no 'document'"),
        ('{"query": " ", "document": "d", "relevant": 1}', "-:2: 'query' must not be empty"),
        ('{"query": "q", "document": "d"}', "-:2: has no 'relevant'"),
        (
            '{"query": "q", "document": "d", "relevant": "yes"}',
            "-:2: 'relevant' must be true, false or a grade, not \"yes\"",
        ),
        (
            '{"query": "q", "document": "d", "relevent": 1}',
            "-:2: unknown field 'relevent'; did you mean relevant?",
        ),
        (
            '{"query": "q", "document": "d", "relevant": 0, "preset": "cod"}',
            "-:2: unknown preset 'cod'; define presets in [instructions] of --config",
        ),
        (
            '{"query": "q", "document": "d", "relevant": 0, "preset": "a", "instruction": "b"}',
            "-:2: has both an instruction and a preset",
        ),
        (GOOD, "-: instruction 'default' has 2 judged pairs, and all are relevant"),
    ],
)
def test_a_malformed_line_is_an_error_that_names_it(line: str, complaint: str) -> None:
    ended = run("calibrate", "-", "--engine", "fake", stdin=f"{GOOD}\n{line}\n")

    assert ended.returncode == 2
    assert complaint in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--precision", "1.5"], "--precision must be above 0 and at most 1, not 1.5"),
        (["--picture", "scores.gif"], "--picture must end in .png or .svg, not 'scores.gif'"),
        (["--bins", "0"], "--bins must be at least 1, not 0"),
        (["--url", "http://127.0.0.1:9"], "http://127.0.0.1:9: cannot connect"),
        (["--write", "/no/such/folder/c.toml"], "cannot write /no/such/folder/c.toml"),
    ],
)
def test_a_wrong_flag_is_an_error_without_a_traceback(arguments: list[str], complaint: str) -> None:
    wrong = '{"query": "q", "document": "e", "relevant": false}'
    ended = run("calibrate", "-", "--engine", "fake", *arguments, stdin=f"{GOOD}\n{wrong}\n")

    assert ended.returncode in (1, 2)
    assert complaint in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("flag", ["--write", "--json", "--picture"])
def test_an_unwritable_file_is_an_error_before_scoring(flag: str) -> None:
    ended = run("calibrate", "/no/such/pairs.jsonl", flag, "/no/such/folder/scores.svg")

    assert ended.returncode == 2
    assert ended.stderr == (
        "rankd: cannot write /no/such/folder/scores.svg: there is no folder /no/such/folder\n"
    )


def test_separated_scores_are_reported_as_too_easy(tmp_path: Path) -> None:
    rows = [
        {"query": "What is the capital of China?", "document": text, "relevant": right}
        for text, right in (("The capital of China is Beijing.", True), ("Lions hunt.", False))
    ]

    result = calibrate(tmp_path, rows, "--platt")

    assert "no score lies on the wrong side" in result["output"]
    [one] = result["figures"]["instructions"]
    assert one["separated"]
    assert one["threshold"]["f1"] == 1


def test_pairs_are_measured_with_the_instruction_that_the_checkpoint_states(
    builtin: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (model / name).symlink_to(builtin / name)
    state(model, answers=None, prompt="Find code.")
    rows = [
        {"query": "q", "document": "q", "relevant": True},
        {"query": "q", "document": "d", "relevant": False, "instruction": "Find code."},
    ]

    toml = calibrate(tmp_path, rows, "--model", str(model), "--engine", "fake")["toml"]

    assert toml["calibration"].keys() == {"default"}
    assert toml["calibration"]["default"]["instruction"] == "Find code."
    assert "instructions" not in toml


def test_a_table_names_weights_prompt_and_pairs(tmp_path: Path, pairs: list[Row]) -> None:
    file = tmp_path / "builtin.toml"

    settings = calibrate(
        tmp_path, pairs, "--platt", "--table", str(file), "--about", 'The "triples".'
    )["toml"]["calibration"]["default"]

    table = read_table(file)
    shipped = read_table(FOLDER / "builtin.toml")
    assert (table.model, table.weights, table.template) == (
        *(shipped.model, shipped.weights),
        shipped.template,
    )
    assert (table.instruction, table.threshold) == (INSTRUCTION, settings["threshold"])
    assert table.platt.model_dump() == settings["platt"]
    digest = hashlib.sha256((tmp_path / "pairs.jsonl").read_bytes()).hexdigest()
    assert table.measured["sha256"] == digest
    assert table.measured["pairs"] == 'The "triples".'
    assert table.measured["judged"] == len(pairs)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--about", "x"], "--table needs --platt"),
        (["--platt"], "--table needs --about"),
        (["--platt", "--about", "x", "--url", "http://127.0.0.1:9"], "behind --url is unknown"),
    ],
)
def test_a_table_needs_what_it_holds(tmp_path: Path, arguments: list[str], words: str) -> None:
    ended = run("calibrate", "pairs.jsonl", "--table", str(tmp_path / "a.toml"), *arguments)

    assert ended.returncode == 2
    assert words in ended.stderr


def test_a_table_is_of_the_servers_own_instruction(tmp_path: Path) -> None:
    rows = [
        {"query": "q", "document": text, "relevant": text == "q", "instruction": "Find it."}
        for text in ("q", "Bread.", "Lions.")
    ]
    table = tmp_path / "a.toml"
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    ended = run(
        *("calibrate", str(tmp_path / "p.jsonl"), "--platt", "--engine", "fake"),
        *("--table", str(table), "--about", "x"),
    )

    assert ended.returncode == 2
    assert "pairs of the server's own instruction only" in ended.stderr
    assert not table.exists()
