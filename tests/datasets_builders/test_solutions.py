"""Sudokus with several solutions: found, counted and warned of; what is valid whatever the label says."""

import logging
from pathlib import Path

import numpy as np
import pytest

from datasets_builders import features
from datasets_builders.features import load_puzzles
from datasets_builders.solutions import several_solutions, solved_by_singles
from datasets_builders.validation import sudoku_is_valid, sudoku_units, validity_check
from modeling_trm.processing_trm import GridProcessor

QUESTION, ANSWER = "1.3..41.2..3.32.", "1234341221434321"
SMALL = GridProcessor("sudoku", grid_shape=(4, 4))


def solutions(grid: str) -> int:
    """How many there are, by trying."""
    if "." not in grid:
        return 1
    at = grid.index(".")
    units = [positions.tolist() for _, positions in sudoku_units(4) if at in positions]
    taken = {grid[cell] for unit in units for cell in unit}
    return sum(solutions(grid[:at] + digit + grid[at + 1 :]) for digit in "1234" if digit not in taken)


def test_a_second_solution_is_found_where_there_is_one() -> None:
    random = np.random.RandomState(0)
    grids = ["." * 16, ANSWER, QUESTION]
    for _ in range(60):
        blanks = random.permutation(16)[: random.randint(4, 14)]
        grids.append("".join("." if n in blanks else cell for n, cell in enumerate(ANSWER)))
    units_US = np.stack([positions for _, positions in sudoku_units(4)])
    inputs_NC = np.stack([SMALL.encode(grid).numpy() for grid in grids]).astype(np.uint8)
    expected = [solutions(grid) > 1 for grid in grids]
    assert 10 < sum(expected) < len(grids) - 10
    assert several_solutions(inputs_NC, units_US).tolist() == expected
    for side in (9, 16, 25):
        units_US = np.stack([positions for _, positions in sudoku_units(side)])
        assert several_solutions(np.ones((1, side * side), dtype=np.uint8), units_US).tolist() == [True]
    units_US = np.stack([positions for _, positions in sudoku_units(4)])
    contradictory = SMALL.encode("11" + "." * 14).numpy().astype(np.uint8)[None]
    assert several_solutions(contradictory, units_US).tolist() == [False]
    assert several_solutions(inputs_NC[:0], units_US).tolist() == []


def filled_by_singles(grid: str) -> bool:
    """Cell by cell, as the rules of naked and hidden singles are told to people."""
    units = [positions.tolist() for _, positions in sudoku_units(4)]
    cells = list(grid)
    while True:
        allowed = [
            {cell} if cell != "." else set("1234") - {cells[other] for unit in units if at in unit for other in unit}
            for at, cell in enumerate(cells)
        ]
        for at in (at for at, cell in enumerate(cells) if cell == "."):
            hidden = [
                digit
                for digit in sorted(allowed[at])
                for unit in units
                if at in unit and not any(digit in allowed[other] for other in unit if other != at)
            ]
            found = sorted(allowed[at]) if len(allowed[at]) == 1 else hidden
            if found:
                cells[at] = found[0]
                break
        else:
            return "." not in cells and all(len({cells[at] for at in unit}) == 4 for unit in units)


def test_what_singles_solve_is_what_people_solve_with_them() -> None:
    random = np.random.RandomState(1)
    grids = [ANSWER, "." * 16, "11" + "." * 14]
    for _ in range(80):
        blanks = random.permutation(16)[: random.randint(6, 13)]
        grids.append("".join("." if n in blanks else cell for n, cell in enumerate(ANSWER)))
    units_US = np.stack([positions for _, positions in sudoku_units(4)])
    inputs_NC = np.stack([SMALL.encode(grid).numpy() for grid in grids]).astype(np.uint8)
    expected = [filled_by_singles(grid) for grid in grids]
    assert 10 < sum(expected) < len(grids) - 10
    assert solved_by_singles(inputs_NC, units_US).tolist() == expected
    sample = load_puzzles("sudoku", "test", subset=60)
    easy = sample.sources == "gen_easy"
    solved = solved_by_singles(sample.inputs, np.stack([positions for _, positions in sudoku_units(9)]))
    assert solved[easy].all() and not solved[sample.sources == "gen_vicinity_hard"].any()


def test_the_sample_has_one_solution_each() -> None:
    puzzles = load_puzzles("sudoku", "test", subset=40)
    units_US = np.stack([positions for _, positions in sudoku_units(9)])
    assert not several_solutions(puzzles.inputs, units_US).any()
    assert puzzles.several_solutions is None
    fewer = puzzles.inputs.copy()
    fewer[:, :40] = 1
    assert several_solutions(fewer, units_US).all()


def test_several_solutions_are_counted_and_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [(QUESTION, ANSWER)] * 99 + [("." * 16, ANSWER)]
    path = tmp_path / "a.csv"
    path.write_text("question,answer\n" + "\n".join(map(",".join, rows)), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        assert load_puzzles("sudoku", "test", data_files={"test": path}, validate="all").several_solutions == (1, 100)
    assert "a.csv: 1 of the 100 puzzles that were searched have several solutions: 'exact' counts only" in caplog.text
    count, searched = load_puzzles("sudoku", "test", data_files={"test": path}).several_solutions or (None, None)
    assert searched == 100 and count == 1  # as many cells as 64 Sudokus of 9 x 9 have
    monkeypatch.setattr(features, "CELLS_SEARCHED", 160)
    count, searched = load_puzzles("sudoku", "test", data_files={"test": path}).several_solutions or (None, None)
    assert searched == 10 and count in (0, 1)
    path.write_text(f"question,answer\n{QUESTION},{ANSWER}", encoding="utf-8")
    assert load_puzzles("sudoku", "test", data_files={"test": path}).several_solutions == (0, 1)


def test_valid_is_what_obeys_the_rules_whatever_the_label_says() -> None:
    other = "2143432112343412"
    assert sudoku_is_valid("." * 16, ANSWER) and sudoku_is_valid("." * 16, other)
    assert sudoku_is_valid(QUESTION, ANSWER) and not sudoku_is_valid(QUESTION, other)
    assert not sudoku_is_valid("." * 16, "1" + ANSWER[1:15] + "2") and not sudoku_is_valid("." * 16, "." * 16)
    assert validity_check("sudoku", (4, 4)) is sudoku_is_valid
    assert validity_check("grid", (4, 4)) is None
    maze_is_valid = validity_check("maze", (2, 3))
    assert maze_is_valid is not None and maze_is_valid("S  # G", "Soo# G") and not maze_is_valid("S  # G", "S  # G")
