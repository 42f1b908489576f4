"""Do a puzzle's names matter? Every Sudoku is solved once more with its digits renamed, each by a draw of its own.

A model with symbol fields answers the same (arXiv 2603.02193); one that reads digits as words has learnt from its
training how far they are alike, and this measures it.

Shapes: N puzzles, L cells.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from ..augmentation_trm import SudokuDraws
from ..utils.intervals import wilson_interval


def relabelled(puzzles: Any, seed: int) -> Any:
    """The Sudokus with their digits renamed: puzzle n by draw n of the seed, its cells where they were.

    Args:
        puzzles: a PuzzleSet.

    Raises:
        ValueError: puzzles of another task, whose symbols have a meaning.
    """
    if puzzles.task != "sudoku":
        raise ValueError(f"the symbols of task {puzzles.task!r} have a meaning; only a sudoku's digits can be renamed")
    side = puzzles.processor.grid_shape[0]
    draws = SudokuDraws.draw(seed, np.arange(len(puzzles)), side)
    in_place = np.tile(np.arange(side), (len(puzzles), 1))
    renaming = SudokuDraws(np.zeros(len(puzzles), dtype=bool), in_place, in_place, draws.digits)
    return replace(puzzles, inputs=renaming.apply(puzzles.inputs), labels=renaming.apply(puzzles.labels))


def relabelling_metrics(exact_N: np.ndarray, relabelled_N: np.ndarray) -> dict[str, Any]:
    """What is solved under other names, and how much of what was solved as it is stays so.

    Args:
        exact_N: bool, the puzzle was solved as it is. relabelled_N: with its digits renamed.

    Returns:
        {"exact_accuracy", "ci95"} of the renamed puzzles, and {"kept", "kept_ci95"}, the share of those solved as they
        are that are also solved renamed; None where none was.
    """
    solved, kept = int(exact_N.sum()), int((exact_N & relabelled_N).sum())
    return {
        "exact_accuracy": float(relabelled_N.mean()),
        "ci95": list(wilson_interval(int(relabelled_N.sum()), len(relabelled_N))),
        "kept": kept / solved if solved else None,
        "kept_ci95": list(wilson_interval(kept, solved)) if solved else None,
    }
