"""The invariant of solution families does not change under any symmetry, and tells unrelated grids apart."""

import numpy as np

from datasets_builders.families import maze_families, solution_families
from datasets_builders.features import load_puzzles
from modeling_trm.augmentation_trm import MazeAugmentation, SudokuDraws


def test_symmetric_solutions_are_one_family():
    labels = load_puzzles("sudoku", "validation").labels[:200]
    families = solution_families(labels)
    turned = SudokuDraws.draw(0, np.arange(len(labels))).apply(labels)
    np.testing.assert_array_equal(solution_families(turned), families)


def test_the_splits_of_the_sample_share_no_family():
    labels = [load_puzzles("sudoku", split).labels for split in ("train", "validation", "test")]
    train, validation, test = (set(solution_families(part).tolist()) for part in labels)
    assert train.isdisjoint(validation)
    assert train.isdisjoint(test)
    assert validation.isdisjoint(test)
    assert len(validation) > 1490  # unrelated solutions are told apart; a few rows are siblings


def test_symmetric_mazes_are_one_family():
    mazes = load_puzzles("maze", "validation").inputs.reshape(-1, 30, 30)[:20]
    families = maze_families(mazes)
    assert len(set(families)) == 20
    for number in range(8):
        assert maze_families(MazeAugmentation.from_number(number).apply(mazes)) == families
