"""Puzzles for the evaluation's tests: 4x4 Sudoku that fit the tiny models, generated without the code under test."""

from collections.abc import Callable

import numpy as np
import pytest

from datasets_builders.features import PuzzleSet
from modeling_trm import GridProcessor

BLANK = 1


@pytest.fixture
def small_sudoku() -> Callable[..., PuzzleSet]:
    """small_sudoku(count): 4x4 Sudoku from relabelled digits, about half of the cells blank; three unequal sources."""

    def make(count: int) -> PuzzleSet:
        random = np.random.RandomState(7)
        solved = np.array([1, 2, 3, 4, 3, 4, 1, 2, 2, 1, 4, 3, 4, 3, 2, 1])
        digits = np.stack([random.permutation(4) + 2 for _ in range(count)])  # token ids 2..5
        labels = digits[:, solved - 1].astype(np.uint8)
        inputs = np.where(random.rand(count, 16) < 0.5, BLANK, labels).astype(np.uint8)
        sources = np.array(["easy", "hard", "middling"])[random.choice(3, count, p=[0.5, 0.1, 0.4])]
        ratings = random.randint(0, 40, count).astype(np.int32)
        return PuzzleSet("sudoku", inputs, labels, sources, ratings, GridProcessor("sudoku", grid_shape=(4, 4)))

    return make
