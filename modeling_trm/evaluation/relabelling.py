"""Views of puzzles as token ids, and answers back to the puzzle's own frame, still as token ids.

The views are those that vote in `views.PuzzleViews`: of the same seed, view v of puzzle n is the same grid. There an
answer comes back as text; here as ids, also where it is no grid, so that it can be compared cell by cell.

Shapes: L cells. Source: TRM (arXiv 2510.04871), public evaluator: solve augmented puzzles, undo, vote.
"""

from dataclasses import dataclass

import numpy as np

from ..augmentation_trm import NUM_DIHEDRALS, Dihedral, SudokuAugmentation

TASKS = ("sudoku", "maze")


@dataclass(frozen=True)
class Relabelling:
    """The views of a task's puzzles: relabelled Sudoku, turned and mirrored mazes. View 0 is the puzzle as it is.

    Raises:
        ValueError: a task without known augmentations.
    """

    task: str
    grid_shape: tuple[int, int]
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task={self.task!r} has no known augmentations; allowed: {', '.join(TASKS)}")

    @property
    def most(self) -> int | None:
        """How many views there are of a puzzle; None where they do not run out."""
        if self.task == "sudoku":
            return None
        return NUM_DIHEDRALS if self.grid_shape[0] == self.grid_shape[1] else NUM_DIHEDRALS // 2

    def apply(self, number: int, view: int, ids: np.ndarray) -> np.ndarray:
        """That view of puzzle `number`, ids [..., L]."""
        if self.task == "maze":
            return self._moved(Dihedral.from_number(view), ids)
        return self._sudoku(number, view).apply(ids) if view else ids

    def undo(self, number: int, view: int, ids: np.ndarray) -> np.ndarray:
        """Answers to that view, ids [..., L], in the frame of puzzle `number`."""
        if self.task == "maze":
            return self._moved(Dihedral.from_number(view).inverse(), ids)
        return self._sudoku(number, view).inverse().apply(ids) if view else ids

    def _sudoku(self, number: int, view: int) -> SudokuAugmentation:
        return SudokuAugmentation.draw(self.seed, (view << 32) + number, self.grid_shape[0])

    def _moved(self, dihedral: Dihedral, ids: np.ndarray) -> np.ndarray:
        grids = ids.reshape(*ids.shape[:-1], *self.grid_shape)
        return np.ascontiguousarray(dihedral.apply(grids)).reshape(ids.shape)
