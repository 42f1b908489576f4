"""The invariant of solution families does not change under any symmetry, and tells unrelated grids apart."""

import numpy as np

from datasets_builders.augmentation import MazeAugmentation, SudokuDraws
from datasets_builders.families import maze_families, solution_families
from datasets_builders.features import load_puzzles


def test_symmetric_solutions_are_one_family():
    labels = load_puzzles("sudoku", "validation").labels[:200]
    families = solution_families(labels)
    turned = SudokuDraws.draw(0, np.arange(len(labels))).apply(labels)
    np.testing.assert_array_equal(solution_families(turned), families)


def test_the_splits_of_the_sample_share_no_family():
    splits = [
        set(solution_families(load_puzzles("sudoku", s).labels).tolist()) for s in ("train", "validation", "test")
    ]
    assert not (splits[0] & splits[1] or splits[0] & splits[2] or splits[1] & splits[2])
    assert len(splits[1]) > 1490  # different solutions, different families, but for siblings


def test_symmetric_mazes_are_one_family():
    mazes = load_puzzles("maze", "validation").inputs.reshape(-1, 30, 30)[:20]
    families = maze_families(mazes)
    assert len(set(families)) == 20
    for number in range(8):
        assert maze_families(MazeAugmentation.from_number(number).apply(mazes)) == families
