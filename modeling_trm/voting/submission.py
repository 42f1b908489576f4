"""Submission files of the ARC Prize: for each test input of each task the grids of two attempts.

    {"00576224": [{"attempt_1": [[3, 2], [7, 8]], "attempt_2": [[0, 0], [0, 0]]}, ...one object a test input], ...}

Format: arcprize.org and the Kaggle competition "ARC Prize 2025"; attempts from votes as in the ARC evaluator of TRM
(arXiv 2510.04871, evaluators/arc.py).
"""

import json
from collections.abc import Mapping, Sequence
from math import fsum
from pathlib import Path
from typing import Any

from ..metrics.pass_at_k.ranking import rank_candidates
from ..processing_trm import text_to_colours
from ..puzzle_index_trm import bare_id
from ..utils.files import write_text
from ..utils.reading import load_json
from .records import VoteRecords

ATTEMPTS = 2  # what the competition allows
MAX_GRID_SIZE = 30
NO_ANSWER = [[0]]  # the format needs a grid; an input without candidates is still counted as wrong in the report

Grid = list[list[int]]
Submission = dict[str, list[dict[str, Grid]]]


def build_submission(records: VoteRecords, attempts: int = ATTEMPTS) -> Submission:
    """The best candidates of every test input, the tasks and their inputs in the order of the records' numbers.

    Fewer candidates than attempts: the first is repeated. No candidate at all: [[0]] in every attempt; the report
    lists those inputs. Task ids "subset/id" become the bare id.

    Raises:
        ValueError: when the records are not of ARC, two tasks have one bare id, a task lacks a test input, or
            `attempts` is below 1.
    """
    if attempts < 1:
        raise ValueError(f"attempts must be at least 1, got {attempts}")
    if records.manifest["task"] != "arc":
        raise ValueError(f"only task 'arc' has submission files, these records are of {records.manifest['task']!r}")
    inputs_of: dict[str, dict[int, int]] = {}
    for number, test_input in enumerate(records.inputs):
        pairs = inputs_of.setdefault(test_input.task_id, {})
        if test_input.pair in pairs:
            raise ValueError(f"task {test_input.task_id!r} has its test input {test_input.pair} twice")
        pairs[test_input.pair] = number
    submission: Submission = {}
    for task, task_id in bare_ids(list(inputs_of)).items():
        pairs = inputs_of[task_id]
        if sorted(pairs) != list(range(len(pairs))):
            raise ValueError(f"task {task_id!r} has the test inputs {sorted(pairs)}; all from 0 on are needed")
        submission[task] = [_attempts(records, pairs[pair], attempts) for pair in range(len(pairs))]
    return submission


def bare_ids(task_ids: Sequence[str]) -> dict[str, str]:
    """{id without its subset: task id}. Raises ValueError where two tasks would share one."""
    task_of: dict[str, str] = {}
    for task_id in task_ids:
        bare = bare_id(task_id)
        if bare in task_of:
            raise ValueError(f"tasks {task_of[bare]!r} and {task_id!r} have one id {bare!r} in a submission")
        task_of[bare] = task_id
    return task_of


def with_all_tasks(submission: Submission, expected: Mapping[str, int]) -> Submission:
    """The submission with [[0]] in every attempt of the tasks that it lacks, in the order of `expected`.

    Args:
        expected: number of test inputs of each task.

    Raises:
        ValueError: naming a task that is not expected, or has another number of test inputs.
    """
    unknown = submission.keys() - expected.keys()
    if unknown:
        raise ValueError(f"task {min(unknown)!r} is not one of the {len(expected)} expected")
    attempts = [f"attempt_{place}" for place in range(1, _number_of_attempts(submission) + 1)]
    complete = {
        task: submission.get(task) or [dict.fromkeys(attempts, NO_ANSWER) for _ in range(tests)]
        for task, tests in expected.items()
    }
    check_submission(complete, expected, len(attempts))
    return complete


def write_submission(submission: Submission, path: str | Path) -> Path:
    """Write the file whole or not at all, and read it back.

    Raises:
        ValueError: naming task, test, attempt and row of what the format does not allow; then nothing is written.
    """
    attempts = _number_of_attempts(submission)
    check_submission(submission, attempts=attempts)
    written = write_text(path, json.dumps(submission) + "\n")
    expected = {task: len(tests) for task, tests in submission.items()}
    if read_submission(written, expected, attempts) != submission:
        raise ValueError(f"{written} does not read back as it was written")
    return written


def read_submission(
    path: str | Path, expected: Mapping[str, int] | None = None, attempts: int = ATTEMPTS
) -> Submission:
    """Read and check a submission file.

    Args:
        expected: number of test inputs of each task; exactly these must be there.
        attempts: grids a test input.

    Raises:
        ValueError: naming the file, and task, test, attempt and row of what is wrong.
    """
    submission = load_json(path)
    try:
        check_submission(submission, expected, attempts)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return submission


def check_submission(submission: Any, expected: Mapping[str, int] | None = None, attempts: int = ATTEMPTS) -> None:
    """Raises ValueError naming task, test, attempt and row of the first thing that the format does not allow."""
    if not isinstance(submission, dict):
        raise ValueError(f"a submission is an object of tasks, got {type(submission).__name__}")
    if expected is not None:
        missing, unknown = expected.keys() - submission.keys(), submission.keys() - expected.keys()
        if missing or unknown:
            lacking, name = ("is missing", min(missing)) if missing else ("is not one of the expected", min(unknown))
            raise ValueError(f"task {name!r} {lacking} ({len(missing)} missing, {len(unknown)} unexpected)")
    names = [f"attempt_{number}" for number in range(1, attempts + 1)]
    for task, tests in submission.items():
        if not isinstance(tests, list) or not tests:
            raise ValueError(f"task {task!r}: must be a list with one object a test input, got {_shown(tests)}")
        if expected is not None and len(tests) != expected[task]:
            raise ValueError(f"task {task!r}: {len(tests)} test inputs, expected {expected[task]}")
        for number, test in enumerate(tests):
            where = f"task {task!r}, test {number}"
            if not isinstance(test, dict) or sorted(test) != sorted(names):
                raise ValueError(f"{where}: must be an object with exactly {', '.join(names)}, got {_shown(test)}")
            for name in names:
                _check_grid(test[name], f"{where}, {name}")


def score_submission(submission: Submission, answers: Mapping[str, Sequence[Grid]]) -> float:
    """Share solved by any attempt: mean over a task's test inputs, then over the tasks of `answers`.

    Args:
        answers: {bare task id: the right grid of each test input, in order}.

    Raises:
        ValueError: when there are no answers, or the submission has other tasks or another number of test inputs.
    """
    if not answers:
        raise ValueError("answers is empty: there is no score of no tasks")
    check_submission(submission, {task: len(grids) for task, grids in answers.items()}, _number_of_attempts(submission))
    shares = [
        sum(grid in test.values() for test, grid in zip(submission[task], grids)) / len(grids)
        for task, grids in answers.items()
    ]
    return fsum(shares) / len(shares)


def _attempts(records: VoteRecords, number: int, attempts: int) -> dict[str, Grid]:
    ranked = rank_candidates(*records.of_input(number))[:attempts]
    grids = [text_to_colours(candidate.grid).tolist() for candidate in ranked] or [NO_ANSWER]
    grids += grids[:1] * (attempts - len(grids))
    return {f"attempt_{place}": grid for place, grid in enumerate(grids, start=1)}


def _number_of_attempts(submission: Submission) -> int:
    """Of the first test input; `check_submission` holds the others to it."""
    return max((len(test) for tests in submission.values() for test in tests[:1]), default=ATTEMPTS)


def _check_grid(grid: Any, where: str) -> None:
    if not isinstance(grid, list) or not 1 <= len(grid) <= MAX_GRID_SIZE:
        raise ValueError(f"{where}: must be a list of 1 to {MAX_GRID_SIZE} rows, got {_shown(grid)}")
    for number, row in enumerate(grid):
        if not isinstance(row, list) or not 1 <= len(row) <= MAX_GRID_SIZE:
            raise ValueError(f"{where}, row {number}: must be a list of 1 to {MAX_GRID_SIZE} cells, got {_shown(row)}")
        if len(row) != len(grid[0]):
            raise ValueError(f"{where}, row {number}: {len(row)} cells, row 0 has {len(grid[0])}")
        for cell in row:
            if type(cell) is not int or not 0 <= cell <= 9:
                raise ValueError(f"{where}, row {number}: {cell!r} is no colour; allowed: 0 to 9")


def _shown(value: Any) -> str:
    return repr(value) if len(repr(value)) <= 60 else f"{repr(value)[:57]}..."
