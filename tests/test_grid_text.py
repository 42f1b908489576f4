"""Grids as people write them: what each way is read as, and what is refused because it could be read in two."""

import contextlib
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from modeling_trm.grid_text_trm import SUDOKU_DIGITS, GridReader, sudoku_side
from modeling_trm.processing_trm import GridProcessor
from tests.conftest import PUZZLE

ROWS = [PUZZLE[start : start + 9] for start in range(0, 81, 9)]
NUMBERS = [[0 if cell == "." else int(cell) for cell in row] for row in ROWS]
SUDOKU = GridProcessor("sudoku").reader
MAZE = GridProcessor("maze", grid_shape=(5, 5)).reader
MAZE_TEXT = "#S   # ## # #  # # ##   G"
FROM_ZERO = "0123456789ABCDEFGHIJKLMNO"
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXY"


def solved(side: int) -> str:
    """A solved Sudoku in the processor's characters."""
    box = int(side**0.5)
    return "".join(
        SUDOKU_DIGITS[(row * box + row // box + column) % side]
        for row, column in itertools.product(range(side), repeat=2)
    )


def puzzle(side: int, step: int = 3) -> str:
    """The solved one with cells taken away; every digit stays somewhere."""
    return "".join("." if n % step == 1 else cell for n, cell in enumerate(solved(side)))


def written(grid: str, digits: str, blank: str = ".") -> str:
    return grid.translate(str.maketrans("." + SUDOKU_DIGITS[: len(digits)], blank + digits))


def mixed_blanks(grid: str) -> str:
    marks = itertools.cycle(".0-_*x?X")
    return "".join(next(marks) if cell == "." else cell for cell in grid)


FORMS = {
    **{f"blank {mark!r}": PUZZLE.replace(".", mark) for mark in "0-_*x?X "},
    "mixed blanks": mixed_blanks(PUZZLE),
    "lines": "\n".join(ROWS),
    "windows lines": "\r\n".join(ROWS) + "\r\n",
    "spaces as blanks in lines": "\n".join(ROWS).replace(".", " "),
    "spaces as blanks, cut": "\n".join(row.replace(".", " ").rstrip() for row in ROWS),
    "spaced": " ".join(PUZZLE),
    "spaced lines": "\n".join(" ".join(row) for row in ROWS),
    "spaced, dashes": " ".join(PUZZLE.replace(".", "-")),
    "ruled": GridProcessor("sudoku").render(PUZZLE),
    "ruled, plus": "\n".join(
        [*ROWS[:3], "---+---+---", *(f"{r[:3]}|{r[3:6]}|{r[6:]}" for r in ROWS[3:6]), "===+===+===", *ROWS[6:]]
    ),
    "ruled, dashes": "\n".join(f"|{r[:3]}|{r[3:6]}|{r[6:]}|".replace(".", "-") for r in ROWS),
    "boxed, dashes": "\n".join(
        ["+---+---+---+"] + [f"|{r[:3]}|{r[3:6]}|{r[6:]}|".replace(".", "-") for r in ROWS] + ["+---+---+---+"]
    ),
    "sdk": "#A somebody\n#D 2020-01-01\n[Puzzle]\n" + "\n".join(ROWS),
    "commas": ",".join(PUZZLE.replace(".", "0")),
    "printed list": str([int(cell) for row in NUMBERS for cell in row]),
    "printed array": str(np.array(NUMBERS)),
    "printed floats": str(np.array(NUMBERS, dtype=float).reshape(-1).tolist()),
    "letters": written(PUZZLE, LETTERS[:9]),
    "small letters": written(PUZZLE, LETTERS[:9]).lower(),
    "numbers": NUMBERS,
    "flat numbers": [cell for row in NUMBERS for cell in row],
    "floats": np.array(NUMBERS, dtype=np.float32),
    "tensor": torch.tensor(NUMBERS).half(),
    "text numbers": [[str(cell) for cell in row] for row in NUMBERS],
    "characters": [list(row) for row in ROWS],
    "rows": ROWS,
    "tuples": tuple(map(tuple, NUMBERS)),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_way_to_write_a_sudoku_is_read_as_the_same(form: str) -> None:
    assert SUDOKU.read(FORMS[form]) == PUZZLE


@pytest.mark.parametrize("side", [4, 9, 16, 25])
@pytest.mark.parametrize("name", ["own", "letters", "numbers", "number lists", "ruled", "small"])
def test_sizes_and_alphabets(side: int, name: str) -> None:
    grid = puzzle(side)
    numbers = [str(SUDOKU_DIGITS.index(cell) + 1) if cell != "." else "." for cell in grid]
    rows = np.array([0 if number == "." else int(number) for number in numbers]).reshape(side, side)
    form = {
        "own": grid.replace(".", "0"),
        "letters": written(grid, LETTERS[:side], "-"),
        "numbers": " ".join(numbers),
        "number lists": rows.tolist(),
        "ruled": GridProcessor("sudoku", grid_shape=(side, side)).render(grid),
        "small": grid.lower(),
    }[name]
    reader = GridProcessor("sudoku", grid_shape=(side, side)).reader
    assert reader.read(form) == grid
    if isinstance(form, str):
        assert sudoku_side(form) == side


@pytest.mark.parametrize("side", [16, 25])
def test_a_zero_is_a_digit_where_nothing_else_is_possible(side: int) -> None:
    """A hexadecimal Sudoku: its 0 is the first digit. Read as a blank, another puzzle would be answered."""
    reader = GridProcessor("sudoku", grid_shape=(side, side)).reader
    grid = written(puzzle(side), FROM_ZERO[:side])
    assert "0" in grid and "." in grid
    blank, digit = (rf"characters='\.{start}\w+' \(--characters \.{start}\w+\)" for start in ("123", "0123"))
    readings = f"say {blank} if it is a blank, {digit} if it is a digit"
    with pytest.raises(ValueError, match=f"'0' may be a blank or a digit here: {readings}"):
        reader.read(grid)
    symbols = "." + FROM_ZERO[:side]
    told = GridReader("sudoku", (side, side), reader.characters, written=symbols)
    assert told.read(grid) == told.read(grid.lower()) == puzzle(side)
    numbers = " ".join("." if cell == "." else str(FROM_ZERO.index(cell)) for cell in grid)
    assert told.read(numbers) == puzzle(side)
    with pytest.raises(ValueError, match="'0' may be a blank or a digit"):
        reader.read(numbers)
    whole = written(solved(side), FROM_ZERO[:side])
    assert reader.told_by([whole]).written == symbols
    assert reader.told_by([whole]).read(grid) == puzzle(side)
    assert reader.told_by([solved(side)]).read(puzzle(side).replace(".", "0")) == puzzle(side)
    # Beside the last digit of 1-9A-G, or more often than a digit can occur, it is a blank.
    assert reader.read(mixed_blanks(puzzle(side)).replace("x", ".").replace("X", ".")) == puzzle(side)
    without_last = puzzle(side).replace(SUDOKU_DIGITS[side - 1], ".")
    assert reader.read(without_last.replace(".", "0")) == without_last


def test_an_x_may_be_a_digit_of_25_letters() -> None:
    reader = GridProcessor("sudoku", grid_shape=(25, 25)).reader
    grid = puzzle(25)
    assert reader.read(written(grid, LETTERS)) == grid
    assert reader.read(grid.replace(".", "x")) == grid


@given(st.data())
@pytest.mark.parametrize("side", [4, 9, 16, 25])
def test_whatever_the_processor_writes_is_read_as_it_is(side: int, data: st.DataObject) -> None:
    reader = GridProcessor("sudoku", grid_shape=(side, side)).reader
    grid = data.draw(st.text(alphabet=reader.characters, min_size=side * side, max_size=side * side))
    assert reader.read(grid) == grid


@given(st.text(max_size=100))
def test_any_text_is_a_grid_or_refused(text: str) -> None:
    for reader in (GridProcessor("sudoku", grid_shape=(4, 4)).reader, MAZE):
        with contextlib.suppress(ValueError):
            assert set(reader.read(text)) <= set(reader.characters)
        assert [number for first, last, _ in reader.split(text) for number in (first, last)] == sorted(
            number for first, last, _ in reader.split(text) for number in (first, last)
        )


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        (PUZZLE[:-1], r"the grid has 80 cells, expected 81 \(9 x 9\)"),
        (PUZZLE.replace("7", "q", 1), r"row 1, column 5: 'q' is not allowed; allowed: '\.123456789'"),
        ("\n".join([*ROWS[:8], ROWS[8][:-1]]), "row 9 has 8 cells, expected 9"),
        ("\n".join(ROWS[:8]), "the grid has 8 rows, expected 9"),
        ([*NUMBERS[:8], [0] * 8 + [10]], r"row 9, column 9: 10 is not allowed; allowed: 0\.\.9 or '\.123456789'"),
        ([[float("nan")] * 9] * 9, "row 1, column 1: nan is not allowed"),
        ([[-1] * 9] * 9, "row 1, column 1: -1 is not allowed"),
        ([[10**30] * 9] * 9, "row 1, column 1: 1000000000"),
        ([[None] * 9] * 9, "row 1, column 1: None is not allowed"),
        (" ".join(PUZZLE)[:81], "the grid has 41 cells, expected 81"),  # cut short, and not blanks between
        ({"a": 1}, "a sudoku grid is a string, rows or an array of cells; got {'a': 1}"),
    ],
)
def test_what_is_no_sudoku_is_named(grid: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SUDOKU.read(grid)


def test_mazes() -> None:
    lines = [MAZE_TEXT[start : start + 5] for start in range(0, 25, 5)]
    for form in (MAZE_TEXT, "\n".join(lines), "\r\n".join(lines) + "\r\n", lines, [list(line) for line in lines]):
        assert MAZE.read(form) == MAZE_TEXT
    assert MAZE.read("\n".join(line.rstrip() for line in lines)) == MAZE_TEXT  # an editor cut the trailing spaces
    other = GridReader("maze", (5, 5), "# SGo", written="█.se*")
    assert other.read(MAZE_TEXT.translate(str.maketrans("# SG", "█.se"))) == MAZE_TEXT
    digits = GridReader("maze", (5, 5), "# SGo", written="10234")
    grid = [[{"#": 1, " ": 0, "S": 2, "G": 3}[cell] for cell in line] for line in lines]
    assert digits.read(grid) == digits.read(np.array(grid)) == MAZE_TEXT
    for form, message in (
        ("\n".join(["#####", "#S G", *["#####"] * 3]), "row 2 has 4 cells, expected 5"),  # walled: not a space was cut
        ("\n".join(line[:4] for line in lines), "row 1 has 4 cells, expected 5"),
        ("\n".join(lines[:4]), "the grid has 4 rows, expected 5"),
        (MAZE_TEXT.replace("G", "E"), r"row \d, column \d: 'E' is not allowed; allowed: '# SGo'"),
    ):
        with pytest.raises(ValueError, match=message):
            MAZE.read(form)


@pytest.mark.parametrize("symbols", ["# SG", "##SGo", ""])
def test_characters_of_another_length_or_repeated_are_refused(symbols: str) -> None:
    with pytest.raises(ValueError, match=f"characters={symbols!r} is not allowed; allowed: 5 different characters"):
        GridReader("maze", (5, 5), "# SGo", written=symbols)


def test_several_puzzles_in_a_text() -> None:
    other = PUZZLE[::-1]
    other_rows = [other[start : start + 9] for start in range(0, 81, 9)]
    ruled = GridProcessor("sudoku").render
    for text, lines in (
        (f"{PUZZLE}\n{other}\n", [(1, 1), (2, 2)]),
        (f"# two\n{PUZZLE}\n\n{other.replace('.', '-')}", [(2, 2), (4, 4)]),
        ("\n".join([*ROWS, *other_rows]), [(1, 9), (10, 18)]),
        ("\n".join(["Grid 01", *ROWS, "Grid 02", *other_rows]), [(2, 10), (12, 20)]),
        (f"{ruled(PUZZLE)}\n\n{ruled(other)}\n", [(1, 11), (13, 23)]),
        ("\n".join(["[Puzzle]", *ROWS, "", *other_rows]).replace(".", " "), [(2, 10), (12, 20)]),
    ):
        found = list(SUDOKU.split(text))
        assert [(first, last) for first, last, _ in found] == lines
        assert [SUDOKU.read(grid) for _, _, grid in found] == [PUZZLE, other]
    mazes = "#S  G\n     \n     \n     \n    #"
    assert [grid for _, _, grid in MAZE.split(f"{mazes}\n\n{mazes}")] == [mazes, mazes]
    assert list(SUDOKU.split("\n \n")) == []
