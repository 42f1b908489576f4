"""What solves the same puzzles without a model: the figure that a model's is to be read beside."""

from typing import Any

import numpy as np

from datasets_builders.solutions import solved_by_singles
from datasets_builders.validation import sudoku_units

from ..utils.intervals import wilson_interval
from .puzzles import Puzzles

SINGLES = "baseline without a model: naked and hidden singles, no guess"


def baseline(puzzles: Puzzles) -> dict[str, Any]:
    """{"baseline": {name, exact_accuracy, ci95}} of Sudokus; nothing of a task that has none."""
    if puzzles.task != "sudoku":
        return {}
    units_US = np.stack([positions for _, positions in sudoku_units(puzzles.processor.grid_shape[0])])
    solved, count = int(solved_by_singles(puzzles.inputs, units_US).sum()), len(puzzles)
    interval = list(wilson_interval(solved, count))
    return {"baseline": {"name": SINGLES, "exact_accuracy": solved / count, "ci95": interval}}
