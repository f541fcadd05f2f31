"""The input of `rankd eval`: BEIR's folders, runs of a first stage, BM25."""

from __future__ import annotations

from pathlib import Path

import pytest

from rankd.errors import BadSettings
from rankd.evaluation.beir import read_corpus, read_qrels, read_queries
from rankd.evaluation.first_stage import bm25, read_run


def write(file: Path, *lines: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return file


def test_qrels_are_read_with_and_without_a_header(tmp_path: Path) -> None:
    write(tmp_path / "qrels/test.tsv", "query-id\tcorpus-id\tscore", "q1\td1\t2", "q1\td2\t0")
    write(tmp_path / "qrels/trec.tsv", "q1 0 d1 2", "q1 0 d2 0")

    expected = {"q1": {"d1": 2, "d2": 0}}
    assert read_qrels(tmp_path, "test") == expected
    assert read_qrels(tmp_path, "trec") == expected


def test_queries_without_a_relevant_document_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "qrels/test.tsv", "q1\td1\t1", "q2\td1\t0", "q3\td1\t-1")

    assert list(read_qrels(tmp_path, "test")) == ["q1"]


def test_judged_queries_are_read_in_the_order_of_the_file(tmp_path: Path) -> None:
    write(
        tmp_path / "queries.jsonl",
        '{"_id": "q2", "text": "two"}',
        '{"_id": 1, "text": "one"}',
        '{"_id": "q9", "text": "nine"}',
    )

    queries = read_queries(tmp_path, {"1": {}, "q2": {}})

    assert list(queries.items()) == [("q2", "two"), ("1", "one")]


def test_the_title_is_put_before_the_text(tmp_path: Path) -> None:
    write(
        tmp_path / "corpus.jsonl",
        '{"_id": "d1", "title": "Paris", "text": "A city.", "metadata": {}}',
        '{"_id": "d2", "title": "", "text": "No title."}',
        '{"_id": "d3", "title": "No text", "text": ""}',
        '{"_id": "d4", "text": "Not wanted."}',
    )

    assert read_corpus(tmp_path, {"d1", "d2", "d3"}) == {
        "d1": "Paris A city.",
        "d2": "No title.",
        "d3": "No text",
    }


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"_id": "d2"', "corpus.jsonl:3 is not JSON"),
        ("[1]", "corpus.jsonl:3 must be a JSON object, not [1]"),
        ('{"text": "t"}', "corpus.jsonl:3: has no '_id'"),
        ('{"_id": "d2"}', "corpus.jsonl:3: has no 'text'"),
        ('{"_id": "d2", "text": 7}', "corpus.jsonl:3: 'text' must be a string, not 7"),
        ('{"_id": "d1", "text": "again"}', "corpus.jsonl:3: duplicate id 'd1'"),
    ],
)
def test_a_malformed_document_is_an_error_that_names_its_line(
    tmp_path: Path, line: str, complaint: str
) -> None:
    write(tmp_path / "corpus.jsonl", '{"_id": "d1", "text": "fine"}', "", line)

    with pytest.raises(BadSettings) as refused:
        read_corpus(tmp_path)

    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("q1\td1", "test.tsv:2: needs query-id, corpus-id and score, and has 2 columns"),
        ("q1\td1\thigh", "test.tsv:2: the score must be a whole number, not 'high'"),
    ],
)
def test_a_malformed_judgment_is_an_error_that_names_its_line(
    tmp_path: Path, line: str, complaint: str
) -> None:
    write(tmp_path / "qrels/test.tsv", "q1\td1\t1", line)

    with pytest.raises(BadSettings) as refused:
        read_qrels(tmp_path, "test")

    assert complaint in str(refused.value)


def test_missing_ids_and_files_are_named(tmp_path: Path) -> None:
    write(tmp_path / "queries.jsonl", '{"_id": "q1", "text": "one"}')
    write(tmp_path / "corpus.jsonl", '{"_id": "d1", "text": "one"}')
    write(tmp_path / "qrels/none.tsv", "q1\td1\t0")

    with pytest.raises(BadSettings, match="lacks the judged query 'q2' and 1 more"):
        read_queries(tmp_path, {"q1": {}, "q2": {}, "q3": {}})
    with pytest.raises(BadSettings, match="lacks the candidate 'd2'"):
        read_corpus(tmp_path, {"d1", "d2"})
    with pytest.raises(BadSettings, match="judges no document as relevant"):
        read_qrels(tmp_path, "none")
    with pytest.raises(BadSettings, match=r"cannot read .*test\.tsv: No such file"):
        read_qrels(tmp_path, "test")


def test_a_run_is_sorted_by_score_and_keeps_the_order_of_equal_scores(tmp_path: Path) -> None:
    trec = write(
        tmp_path / "run.trec",
        "q1 Q0 d1 1 2.0 bm25",
        "q1 Q0 d3 3 1.0 bm25",
        "q1 Q0 d2 2 1.0 bm25",
        "q1 Q0 d4 4 9 bm25",
    )
    results = write(tmp_path / "run.json", '{"q1": {"d1": 2.0, "d3": 1, "d2": 1.0, "d4": 9}}')

    assert read_run(trec) == read_run(results) == {"q1": ["d4", "d1", "d3", "d2"]}


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("q1 Q0 d2 1", "run:2: a TREC run has six columns, and this line has 4"),
        ("q1 Q0 d2 1 high x", "run:2: the score must be a number, not 'high'"),
        ("q1 Q0 d2 1 nan x", "run:2: the score must be a number, not 'nan'"),
        ("q1 Q0 d1 2 0.5 x", "run:2: duplicate document 'd1' for query 'q1'"),
    ],
)
def test_a_malformed_line_of_a_run_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    run = write(tmp_path / "run", "q1 Q0 d1 1 1.0 x", line)

    with pytest.raises(BadSettings) as refused:
        read_run(run)

    assert complaint in str(refused.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"q1": ["d1"]}', "query 'q1' needs an object {document: score}"),
        ('{"q1": {"d1": true}}', "query 'q1', document 'd1': the score must be a number"),
        ('{"q1": {"d1": 1}', "run:1 is not JSON"),
        ("", "run holds no candidates"),
    ],
)
def test_malformed_json_results_are_errors(tmp_path: Path, content: str, complaint: str) -> None:
    run = tmp_path / "run"
    run.write_text(content)

    with pytest.raises(BadSettings) as refused:
        read_run(run)

    assert complaint in str(refused.value)


DOCUMENTS = {
    "long": "The fox and the hen and the goose and the duck and the cat were all asleep.",
    "short": "A fox sleeps.",
    "other": "Nothing about animals.",
    "chinese": "中国的首都是北京。",
}


def test_bm25_prefers_short_documents_and_finds_only_documents_with_a_common_word() -> None:
    found = bm25({"q1": "fox", "q2": "no such word", "q3": "首都"}, DOCUMENTS, 10)

    assert found == {"q1": ["short", "long"], "q2": [], "q3": ["chinese"]}


def test_bm25_finds_at_most_depth_documents() -> None:
    assert bm25({"q1": "fox"}, DOCUMENTS, 1) == {"q1": ["short"]}
