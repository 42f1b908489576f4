"""Generated Sudokus: rules, clues, one solution each (by a search of its own), and grids that are no images of one."""

import numpy as np
import pytest

from datasets_builders.families import solution_families
from datasets_builders.features import load_puzzles
from datasets_builders.solutions import several_solutions, solved_by_singles
from datasets_builders.sudoku_generation import BLANK_ID, generate_sudokus
from datasets_builders.validation import DataError, check_sudoku, sudoku_units


def count_solutions(cells: list[int], units: list[list[int]], most: int = 2) -> int:
    """Backtracking over the first cell with the fewest candidates; token ids, 1 is blank."""
    side = len(units[0])
    best: tuple[int, int, list[int]] | None = None
    for cell, value in enumerate(cells):
        if value == BLANK_ID:
            used = {cells[other] for unit in units if cell in unit for other in unit}
            free = [digit for digit in range(2, side + 2) if digit not in used]
            if best is None or len(free) < best[0]:
                best = (len(free), cell, free)
    if best is None:
        return 1
    found = 0
    for digit in best[2]:
        found += count_solutions([digit if at == best[1] else value for at, value in enumerate(cells)], units, most)
        if found >= most:
            break
    return found


@pytest.mark.parametrize(("side", "count"), [(4, 12), (9, 3)])
def test_every_puzzle_has_one_solution_and_keeps_the_rules(side: int, count: int) -> None:
    puzzles = generate_sudokus(side, count, seed=3)
    units = [positions.tolist() for _, positions in sudoku_units(side)]
    for inputs, labels in zip(puzzles.inputs, puzzles.labels, strict=True):
        check_sudoku(puzzles.processor.decode(inputs).replace("?", "."), puzzles.processor.decode(labels))
        assert count_solutions(inputs.tolist(), units) == 1
    assert (puzzles.inputs == BLANK_ID).mean() > 0.5
    again = generate_sudokus(side, count, seed=3)
    assert (again.inputs == puzzles.inputs).all()
    assert not (generate_sudokus(side, 3, seed=4).labels == puzzles.labels[:3]).all()


def test_no_clue_is_left_that_singles_do_without() -> None:
    puzzles = generate_sudokus(4, 6, seed=1)
    units = np.stack([positions for _, positions in sudoku_units(4)])
    assert solved_by_singles(puzzles.inputs, units).all()
    for inputs in puzzles.inputs:
        for cell in np.flatnonzero(inputs != BLANK_ID):
            fewer = inputs.copy()
            fewer[cell] = BLANK_ID
            assert not solved_by_singles(fewer[None], units)[0]


def test_the_chains_leave_the_symmetries_of_the_pattern() -> None:
    labels = generate_sudokus(9, 4, seed=0).labels
    assert len(set(solution_families(labels).tolist())) == 4


def test_a_side_that_no_sudoku_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(6, 6\) is no Sudoku; allowed: \(4, 4\)"):
        generate_sudokus(6, 1)


@pytest.mark.parametrize("side", [4, 16, 25])
def test_the_shipped_samples_of_other_sizes_are_proven_by_singles(side: int) -> None:
    puzzles = load_puzzles("sudoku", "test", grid_shape=(side, side))
    units = np.stack([positions for _, positions in sudoku_units(side)])
    some = puzzles.inputs[:5]
    assert puzzles.processor.grid_shape == [side, side]
    assert solved_by_singles(some, units).all()
    assert not several_solutions(some, units).any()
    assert len(np.unique(puzzles.inputs, axis=0)) == len(puzzles)


def test_a_sample_that_is_not_shipped_is_named() -> None:
    with pytest.raises(DataError, match=r"'sudoku-4x4' has no split 'train'; it has: \['test'\]"):
        load_puzzles("sudoku", "train", grid_shape=(4, 4))
