"""Submission files: padding, order, what the format refuses, and that their score is pass@K of the report."""

import copy
import json
from pathlib import Path

import pytest

from datasets_builders.arc_tasks import load_tasks
from modeling_trm.processing_trm import colours_to_text, text_to_colours
from modeling_trm.voting.records import VoteRecords
from modeling_trm.voting.report import summarise_votes
from modeling_trm.voting.submission import (
    build_submission,
    check_submission,
    read_submission,
    score_submission,
    with_all_tasks,
    write_submission,
)
from tests.voting.samples import random_inputs, records_of

GOOD = {"a": [{"attempt_1": [[1, 2], [3, 4]], "attempt_2": [[0]]}], "b": [{"attempt_1": [[5]], "attempt_2": [[5]]}] * 2}


def answers_of(records: VoteRecords) -> dict[str, list[list[list[int]]]]:
    answers: dict[str, list[list[list[int]]]] = {}
    for test_input in records.inputs:
        grid = text_to_colours(test_input.reference).tolist()
        answers.setdefault(test_input.task_id.split("/")[1], []).append(grid)
    return answers


def test_attempts_are_the_first_candidates_in_the_order_of_the_tests() -> None:
    records = records_of(
        [
            ("evaluation/b", 1, None, [("1", 0.5), ("2/3", 0.5), ("2/3", 0.1), ("4", 0.6)]),
            ("evaluation/b", 0, None, [("12/34", 0.5), ("", 0.9), ("", 0.9)]),
            ("training/a", 0, None, [("", 0.9)]),
        ]
    )
    assert build_submission(records) == {
        "b": [
            {"attempt_1": [[1, 2], [3, 4]], "attempt_2": [[1, 2], [3, 4]]},  # one candidate: repeated
            {"attempt_1": [[2], [3]], "attempt_2": [[4]]},
        ],
        "a": [{"attempt_1": [[0]], "attempt_2": [[0]]}],  # none: the smallest grid there is
    }
    assert summarise_votes(records)["counts"]["inputs_without_prediction"] == ["training/a, test 0"]
    assert build_submission(records, attempts=1)["b"][1] == {"attempt_1": [[2], [3]]}
    assert list(build_submission(records, attempts=3)["b"][1].values()) == [[[2], [3]], [[4]], [[1]]]


@pytest.mark.parametrize("attempts", [1, 2, 5])
@pytest.mark.parametrize("seed", range(10))
def test_score_of_the_file_is_pass_at_k_of_the_report(tmp_path: Path, seed: int, attempts: int) -> None:
    records = records_of(random_inputs(seed))
    path = write_submission(build_submission(records, attempts), tmp_path / "submission.json")
    answers = answers_of(records)
    submission = read_submission(path, {task: len(grids) for task, grids in answers.items()}, attempts)
    expected = summarise_votes(records, k=[attempts])["pass_at_k"][f"pass@{attempts}"]["value"]
    assert score_submission(submission, answers) == pytest.approx(expected, abs=1e-12)


def test_real_tasks(tmp_path: Path) -> None:
    """All 400 evaluation tasks of ARC-AGI-1, every second task answered rightly on the second attempt."""
    inputs, answers = [], {}
    for number, task in enumerate(load_tasks("evaluation")):
        answers[task.id] = [pair.output.tolist() for pair in task.test]
        for place, pair in enumerate(task.test):
            right, wrong = colours_to_text(pair.output), colours_to_text(pair.input)
            votes = [(wrong, 0.5), (wrong, 0.5)] + [(right, 0.5)] * (number % 2)
            inputs.append((f"evaluation/{task.id}", place, right, votes))
    path = write_submission(build_submission(records_of(inputs)), tmp_path / "submission.json")
    submission = read_submission(path, {task: len(grids) for task, grids in answers.items()})
    assert len(submission) == 400
    assert score_submission(submission, answers) == 0.5


def test_written_whole_and_read_back(tmp_path: Path) -> None:
    path = write_submission(GOOD, tmp_path / "new" / "submission.json")
    assert read_submission(path, {"a": 1, "b": 2}) == json.loads(path.read_text(encoding="utf-8")) == GOOD
    before = path.read_bytes()
    with pytest.raises(ValueError, match="task 'a'"):
        write_submission({"a": [{"attempt_1": [[10]], "attempt_2": [[0]]}]}, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["submission.json"]


def test_tasks_that_were_not_attempted_are_filled_in() -> None:
    blank = {"attempt_1": [[0]], "attempt_2": [[0]]}
    complete = with_all_tasks(GOOD, {"c": 2, "b": 2, "a": 1})
    assert list(complete.items()) == [("c", [blank, blank]), ("b", GOOD["b"]), ("a", GOOD["a"])]
    assert with_all_tasks({}, {"a": 1}) == {"a": [blank]}
    with pytest.raises(ValueError, match="task 'a' is not one of the 1 expected"):
        with_all_tasks(GOOD, {"b": 2})
    with pytest.raises(ValueError, match="task 'b': 2 test inputs, expected 1"):
        with_all_tasks(GOOD, {"a": 1, "b": 1})


def changed(*keys, value) -> dict:
    submission = copy.deepcopy(GOOD)
    target = submission
    for key in keys[:-1]:
        target = target[key]
    target[keys[-1]] = value
    return submission


@pytest.mark.parametrize(
    ("submission", "message"),
    [
        ([], "a submission is an object of tasks, got list"),
        (changed("a", value=[]), "task 'a': must be a list with one object a test input"),
        (changed("a", value={"attempt_1": [[0]]}), "task 'a': must be a list"),
        (changed("a", value=GOOD["a"] * 2), "task 'a': 2 test inputs, expected 1"),
        (changed("b", 1, value={"attempt_1": [[0]]}), "task 'b', test 1: must be .* exactly attempt_1, attempt_2"),
        (changed("a", 0, "attempt_3", value=[[0]]), "task 'a', test 0: must be .* exactly attempt_1, attempt_2"),
        (changed("a", 0, "attempt_2", value=[]), "task 'a', test 0, attempt_2: must be a list of 1 to 30 rows"),
        (changed("a", 0, "attempt_2", value=[[0]] * 31), "test 0, attempt_2: must be a list of 1 to 30 rows"),
        (changed("a", 0, "attempt_1", 1, value=[3]), "attempt_1, row 1: 1 cells, row 0 has 2"),
        (changed("a", 0, "attempt_1", 1, value="34"), "attempt_1, row 1: must be a list of 1 to 30 cells, got '34'"),
        (changed("a", 0, "attempt_1", 0, 1, value=10), "attempt_1, row 0: 10 is no colour; allowed: 0 to 9"),
        (changed("a", 0, "attempt_1", 0, 1, value=1.0), "row 0: 1.0 is no colour"),
        (changed("a", 0, "attempt_1", 0, 1, value=True), "row 0: True is no colour"),
        ({"a": GOOD["a"]}, r"task 'b' is missing \(1 missing, 0 unexpected\)"),
        (GOOD | {"c": GOOD["a"]}, "task 'c' is not one of the expected"),
    ],
)
def test_errors_name_the_place(tmp_path: Path, submission, message: str) -> None:
    path = tmp_path / "submission.json"
    path.write_text(json.dumps(submission), encoding="utf-8")
    with pytest.raises(ValueError, match=message) as raised:
        read_submission(path, {"a": 1, "b": 2})
    assert str(path) in str(raised.value)


def test_broken_file(tmp_path: Path) -> None:
    path = tmp_path / "submission.json"
    path.write_text('{"a": [', encoding="utf-8")
    with pytest.raises(ValueError, match=r"submission\.json: is no JSON, or cut short: Expecting value"):
        read_submission(path)
    check_submission(GOOD)


def test_refusals() -> None:
    one = ("evaluation/a", 0, None, [("1", 0.5)])
    with pytest.raises(ValueError, match="tasks 'evaluation/a' and 'training/a' have one id 'a'"):
        build_submission(records_of([one, ("training/a", 0, None, [])]))
    with pytest.raises(ValueError, match=r"task 'evaluation/a' has the test inputs \[1\]; all from 0 on are needed"):
        build_submission(records_of([("evaluation/a", 1, None, [])]))
    with pytest.raises(ValueError, match="task 'evaluation/a' has its test input 0 twice"):
        build_submission(records_of([one, one]))
    with pytest.raises(ValueError, match="only task 'arc' has submission files, these records are of 'sudoku'"):
        build_submission(records_of([one], task="sudoku"))
    with pytest.raises(ValueError, match="attempts must be at least 1, got 0"):
        build_submission(records_of([one]), attempts=0)
    with pytest.raises(ValueError, match="answers is empty"):
        score_submission(GOOD, {})
    with pytest.raises(ValueError, match="task 'b' is not one of the expected"):
        score_submission(GOOD, {"a": [[[0]]]})
