"""Views: a puzzle under an augmentation, solved there, and its answer taken back. View 0 is the puzzle as it is.

Views are values on token ids, drawn as a function of (seed, puzzle, number of the view) and of nothing else: whoever
draws view 3 of a puzzle, the pipeline, an evaluation by votes or a sweep, has the same grid.

    Sudoku    its digits renamed, its rows and columns moved, or transposed; as many as one likes
    maze      turned and mirrored: 8 views, of a maze that is not square 4
    ARC       its colours renamed, turned and mirrored: the rows that a puzzle table has for the task, each with its own
              augmentation, else drawn ones (arXiv 2510.04871, public evaluator)

Shapes: L = height * width positions, V views. Bytes of an ARC augmentation: see puzzle_index_trm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arc_augmentation_trm import ArcAugmentation, draw_augmentations
from .arc_task_trm import ArcTask
from .augmentation_trm import NUM_DIHEDRALS, MazeAugmentation, SudokuAugmentation
from .processing_trm import GridProcessor, colours_to_text, crop_colours, place_colours
from .puzzle_index_trm import BLANK_ROW, IDENTITY, PuzzleIndex

AS_IT_IS = "as it is"
MOST_VIEWS = 65_536  # more are a slip of the hand, and would fill the memory with numbers of views
KINDS: dict[str, Any] = {"sudoku": SudokuAugmentation, "maze": MazeAugmentation, "arc": ArcAugmentation}
Augmentation = SudokuAugmentation | MazeAugmentation | ArcAugmentation


@dataclass(frozen=True)
class View:
    """One view of a puzzle.

    Args:
        grid_shape: (height, width) of the puzzle; of ARC, of the canvas.
        augmentation: None for the puzzle as it is.
        puzzle_row: of the puzzle table, to run it with.
    """

    grid_shape: tuple[int, int]
    augmentation: Augmentation | None = None
    puzzle_row: int = BLANK_ROW

    def apply(self, ids: np.ndarray) -> np.ndarray:
        """Token ids [..., L] of the puzzle -> those of the view (ARC: [L]). Raises ValueError where it does not fit."""
        if isinstance(self.augmentation, ArcAugmentation):
            colours_hw = crop_colours(ids.reshape(self.grid_shape))
            return place_colours(self.augmentation.apply(colours_hw), self.grid_shape).astype(ids.dtype)
        return self._moved(self.augmentation, ids)

    def undo(self, ids: np.ndarray) -> np.ndarray:
        """Answers to the view -> answers to the puzzle, ids likewise; what is no grid stays none."""
        if isinstance(self.augmentation, ArcAugmentation):
            colours_hw = self.augmentation.inverse().apply(crop_colours(ids.reshape(self.grid_shape)))
            fits = np.less_equal(colours_hw.shape, self.grid_shape).all()  # on an oblong canvas it may not
            return place_colours(colours_hw if fits else colours_hw[:0], self.grid_shape).astype(ids.dtype)
        return self._moved(None if self.augmentation is None else self.augmentation.inverse(), ids)

    def _moved(self, augmentation: SudokuAugmentation | MazeAugmentation | None, ids: np.ndarray) -> np.ndarray:
        if augmentation is None:
            return ids
        if isinstance(augmentation, SudokuAugmentation):
            return augmentation.apply(ids)
        grids = ids.reshape(*ids.shape[:-1], *self.grid_shape)
        return np.ascontiguousarray(augmentation.apply(grids)).reshape(ids.shape)

    def __str__(self) -> str:
        return AS_IT_IS if self.augmentation is None else str(self.augmentation)

    @classmethod
    def from_string(cls, text: str, grid_shape: tuple[int, int], puzzle_row: int = BLANK_ROW) -> "View":
        """Raises ValueError for a text that is no view's."""
        if text == AS_IT_IS:
            return cls(grid_shape, None, puzzle_row)
        kind = KINDS.get(text.partition("/")[0])
        if kind is None:
            raise ValueError(f"{text!r} is no view; allowed: {AS_IT_IS!r}, sudoku/..., maze/..., arc/...")
        return cls(grid_shape, kind.from_string(text), puzzle_row)


def draw_view(
    task: str, grid_shape: Sequence[int], seed: int, puzzle: int, number: int, puzzle_row: int = BLANK_ROW
) -> View:
    """View `number` of puzzle number `puzzle` of a Sudoku or maze set; see `check_views` for how many there are."""
    shape = (grid_shape[0], grid_shape[1])
    if number == 0:
        return View(shape, None, puzzle_row)
    if task == "maze":
        return View(shape, MazeAugmentation.from_number(number), puzzle_row)
    return View(shape, SudokuAugmentation.draw(seed, (number << 32) + puzzle, shape[0]), puzzle_row)


def check_views(task: str, views: int | None) -> None:
    """Raises ValueError for a number that is none, or for several views of a task without known augmentations."""
    if views is not None and not 1 <= views <= MOST_VIEWS:
        raise ValueError(f"views={views} is not allowed; allowed: whole numbers from 1 to {MOST_VIEWS:,}")
    if views != 1 and task not in ("sudoku", "maze", "arc"):
        raise ValueError(f"views={views}: task={task!r} has no known augmentations; allowed: sudoku, maze, arc")


def most_views(task: str, grid_shape: Sequence[int], views: int) -> int:
    """How many of so many views there are of a Sudoku, a maze or a text grid."""
    if task != "maze":
        return views
    return min(views, NUM_DIHEDRALS if grid_shape[0] == grid_shape[1] else NUM_DIHEDRALS // 2)


def arc_augmentations(
    task: ArcTask,
    name: str | None,
    index: PuzzleIndex | None,
    grid_shape: Sequence[int],
    views: int | None,
    seed: int,
    unknown: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """The views of an ARC task: (rows int64 [V], augmentations uint8 [V, 11]), the one without augmentation first.

    Args:
        name: of the task, "subset/id"; one without rows in the index is run with the blank row, under drawn
            augmentations.
        grid_shape: of the canvas; on an oblong one nothing that is drawn transposes.
        views: at most so many; None for all rows, of a task without rows for `unknown`.
    """
    known = None if index is None or name is None else index.name_of(name)
    if index is None or known is None:
        drawn = draw_augmentations(task, (unknown if views is None else views) - 1, seed)
        if grid_shape[0] != grid_shape[1]:
            drawn = drawn[drawn[:, 0] < NUM_DIHEDRALS // 2]
        return np.full(len(drawn), BLANK_ROW, dtype=np.int64), drawn
    rows = index.rows_of(known)
    is_augmented = (index.augmentation_of_row[rows] != IDENTITY).any(axis=1)
    rows = rows[np.argsort(is_augmented, kind="stable")][:views]
    return rows, index.augmentation_of_row[rows]


def arc_view(grid_shape: Sequence[int], row: int, augmentation_A: np.ndarray) -> View:
    augmentation = None if (augmentation_A == IDENTITY).all() else ArcAugmentation.from_bytes(augmentation_A)
    return View((grid_shape[0], grid_shape[1]), augmentation, row)


def answer_text(processor: GridProcessor, ids_L: np.ndarray) -> str:
    """The answer as the text that votes are counted by; "" where it is no grid."""
    if processor.task == "arc":
        return colours_to_text(crop_colours(ids_L.reshape(processor.grid_shape)))
    text = processor.decode(ids_L)
    return text if isinstance(text, str) else ""
