"""pipeline("grid-reasoning"): files of every kind, and answers that are written as their puzzles are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from modeling_trm import GridProcessor, ReasoningConfig
from modeling_trm.evaluation.solutions import find_fault, solution_of
from modeling_trm.puzzle_input_trm import read_puzzle

SUDOKU = GridProcessor("sudoku", grid_shape=(4, 4))
Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("asked", "characters", "answer"),
    [
        ("A.C..DA.B..C.CB.", None, "A.C..DA.B..C.CB."),
        ("a.c..da.b..c.cb.", None, "A.C..DA.B..C.CB."),
        ("1 3  41 2  3 32 ", None, "1.3..41.2..3.32."),
        ("2_4__52_3__4_43_", "_2345", "2_4__52_3__4_43_"),
    ],
)
def test_an_answer_is_written_as_its_puzzle(
    echo_pipeline: Make, asked: str, characters: str | None, answer: str
) -> None:
    """In votes too; what is judged by the rules is read back."""
    pipe, _ = echo_pipeline(SUDOKU)
    result = pipe(asked, characters=characters, views=2)
    assert {result["answer"], result["votes"][0]["answer"]} == {answer}
    puzzle = read_puzzle(asked, SUDOKU, characters)
    solution = solution_of(SUDOKU, puzzle, pipe(puzzle, unknown="?"), ReasoningConfig())
    assert solution["puzzle"] == solution["answer"] == answer
    plain = "1.3..41.2..3.32."
    assert solution["fault"] == find_fault(SUDOKU, plain, plain)


FILES = {
    "a.csv": ("quizzes,solutions\n1.3..41.2..3.32.,1234341221434321\n", {}, "read 'quizzes' as the question"),
    "b.csv": ("id;start\n7;1.3..41.2..3.32.\n", {"columns": {"question": "start"}}, "read 'start' as the question"),
    "c.jsonl": ('{"puzzle": [[1,0,3,0],[0,4,1,0],[2,0,0,3],[0,3,2,0]]}\n', {}, "read 'puzzle' as the question"),
    "d.txt": ("1.3.\n.41.\n2..3\n.32.\n", {}, ""),
    "e.csv": ("A.C..DA.B..C.CB.,ABCDCDABBADCDCBA\n", {}, "read 'column 1' as the question"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(echo_pipeline: Make, name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By the reader of data sets; what was taken for the question is said."""
    pipe, _ = echo_pipeline(SUDOKU)
    text, how, note = FILES[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    (result,) = pipe(tmp_path / name, **how)
    assert result["answer"] == ("A.C..DA.B..C.CB." if name == "e.csv" else "1.3..41.2..3.32.")
    assert note in caplog.text and bool(note) == bool(caplog.text)
