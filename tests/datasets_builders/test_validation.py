"""Checks of single puzzles: what is accepted, and what each wrong one is told."""

import pytest

from datasets_builders.validation import BadRow, PuzzleError, check_sudoku, list_bad_rows

QUESTION = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
ANSWER = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
SMALL_QUESTION = "1...|....|....|...."
SMALL_ANSWER = "1234341221434321"


def test_right_puzzles_pass():
    check_sudoku(QUESTION, ANSWER)
    check_sudoku(QUESTION.replace(".", "0"), ANSWER)
    check_sudoku(SMALL_QUESTION, SMALL_ANSWER)
    check_sudoku(ANSWER, ANSWER)


@pytest.mark.parametrize(
    ("question", "answer", "reason"),
    [
        (QUESTION[:-1], ANSWER, r"the question: has 80 cells, expected 81 \(9 x 9\)"),
        (QUESTION, ANSWER + "1", "the answer: has 82 cells"),
        (QUESTION.replace("7", "q", 1), ANSWER, "the question: row 1, column 5: 'q' is not allowed"),
        (QUESTION, "." + ANSWER[1:], "the answer is blank at row 1, column 1"),
        ("4" + QUESTION[1:], ANSWER, "has '5' where the question has '4', at row 1, column 1"),
        (QUESTION, ANSWER[:2] + "64" + ANSWER[4:], "breaks the rules: column 3 does not have every digit once"),
        (SMALL_QUESTION, "1234234134124123", "breaks the rules: box 1 does not"),
        (QUESTION, "", "the answer: has 0 cells"),
    ],
)
def test_wrong_sudokus_are_told_why(question, answer, reason):
    with pytest.raises(PuzzleError, match=reason):
        check_sudoku(question, answer)


def test_many_bad_rows_are_listed_in_short():
    rows = [BadRow("a.csv", number, "is wrong") for number in range(1, 9)]
    text = list_bad_rows(rows)
    assert text.splitlines()[0] == "a.csv, row 1: is wrong"
    assert text.splitlines()[-1] == "... and 3 more"
    assert list_bad_rows(rows[:2]).count("\n") == 1
