"""Views of test inputs: each input under several augmentations, and the way back from an answer to the input's frame.

Source: TRM (arXiv 2510.04871), public evaluator: every augmentation of a task that the puzzle table has a row for is
run with that row, cropped, undone, and votes. A view is one augmentation of one input; view 0 is the input as it is.

Shapes: N test inputs, V views of an input, B items of a batch, L positions. An item is (input number, view number).
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from datasets_builders.features import PuzzleSet

from ..arc_task_trm import ArcTask, task_name
from ..processing_trm import GridProcessor, colours_to_text
from ..puzzle_index_trm import BLANK_ROW, PuzzleIndex
from ..views_trm import View, answer_text, arc_augmentations, arc_view, check_views, draw_view, most_views
from .folder import TestInput, fingerprint_inputs

Items = Sequence[tuple[int, int]]
UNSTATED = "unstated"  # nothing says whether the model was trained on demonstrations of the tasks
NUM_VIEWS_WITHOUT_ROWS = 1000  # of a task that the table does not know; the published number of augmentations


class Views(ABC):
    """What `collect_votes` runs: test inputs, and how many views each has.

    Attributes:
        inputs: the test inputs. views_of_input: int64 [N], at least 1 each. protocol: how the model met the tasks.
        fingerprint: changes with the inputs and with every augmentation.
    """

    task: str
    protocol: str | None
    processor: GridProcessor
    inputs: tuple[TestInput, ...]
    views_of_input: np.ndarray
    fingerprint: str
    _ids: Any  # uint8 [N, L], or a list of [L]

    @abstractmethod
    def view(self, input_number: int, number: int) -> View: ...

    def batch(self, items: Items) -> tuple[np.ndarray, np.ndarray]:
        """Input ids uint8 [B, L] and puzzle ids int64 [B] of these views."""
        views = [self.view(*item) for item in items]
        ids = [view.apply(self._ids[number]) for view, (number, _) in zip(views, items, strict=True)]
        return np.stack(ids), np.array([view.puzzle_row for view in views], dtype=np.int64)

    def undo(self, input_number: int, number: int, answer_ids: np.ndarray) -> str:
        """The answer to a view as grid text in the frame of its input, "" for no grid."""
        return answer_text(self.processor, self.view(input_number, number).undo(answer_ids))


class ArcViews(Views):
    """The test inputs of ARC tasks under the augmentations that the model's own table has rows for.

    A task without rows (the model was not trained on its demonstrations, or has no table) is run with the blank row
    under augmentations drawn here. Grids stand untranslated on the canvas, as in the published evaluation.

    Args:
        index: what the rows of the model's table stand for; None for a model without a table. A task's name in it is
            "subset/id".
        views: largest number of views of an input, the unaugmented one included. Default: all rows of the task; for a
            task without rows NUM_VIEWS_WITHOUT_ROWS.
        seed: of the augmentations drawn for tasks without rows.
        protocol: how the model met the tasks; by default said by the index: a task with rows has been trained on.

    Attributes:
        num_unknown: how many of the tasks have no rows.

    Raises:
        ValueError: no task at all, a task given twice, or a grid that does not fit the model's canvas.
    """

    task = "arc"

    def __init__(
        self,
        tasks: Sequence[ArcTask],
        index: PuzzleIndex | None,
        processor: GridProcessor,
        views: int | None = None,
        seed: int = 0,
        protocol: str | None = None,
    ):
        check_views("arc", views)
        if not any(task.test for task in tasks):
            raise ValueError(
                "there is no arc task with a test to evaluate; a list of pairs (RE-ARC) is demonstrations, of which "
                "nothing is asked"
            )
        self.processor = processor
        names = [task_name(task) for task in tasks]
        twice = [name for number, name in enumerate(names) if name in names[:number]]
        if twice:
            raise ValueError(f"task {twice[0]!r} is given twice")
        # Of each task: rows int64 [V] of the table and augmentations uint8 [V, 11].
        self._views = [
            arc_augmentations(task, name, index, processor.grid_shape, views, seed, NUM_VIEWS_WITHOUT_ROWS)
            for name, task in zip(names, tasks, strict=True)
        ]
        self.num_unknown = sum(rows[0] == BLANK_ROW for rows, _ in self._views)
        pairs = [(number, place, pair) for number, task in enumerate(tasks) for place, pair in enumerate(task.test)]
        self._task_of_input = [number for number, _, _ in pairs]
        self.inputs = tuple(
            TestInput(
                names[number],
                place,
                colours_to_text(pair.input),
                None if pair.output is None else colours_to_text(pair.output),
            )
            for number, place, pair in pairs
        )
        self._ids = [self._encoded(item, pair.input) for item, (_, _, pair) in zip(self.inputs, pairs, strict=True)]
        self.views_of_input = np.array([len(self._views[number][0]) for number in self._task_of_input], dtype=np.int64)
        self.protocol = protocol_of(names, index) if protocol is None else protocol
        self.fingerprint = self._fingerprint()

    def view(self, input_number: int, number: int) -> View:
        rows, augmentations = self._views[self._task_of_input[input_number]]
        return arc_view(self.processor.grid_shape, int(rows[number]), augmentations[number])

    def _encoded(self, item: TestInput, grid: np.ndarray) -> np.ndarray:
        try:
            return self.processor.encode(grid.tolist()).numpy().astype(np.uint8)
        except ValueError as error:
            raise ValueError(f"task {item.task_id!r}, test {item.pair + 1}: {error}") from error

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(fingerprint_inputs(self.inputs).encode())
        for rows, augmentations in self._views:
            # Whether the task has rows, not which: the same table holds it at other rows when loaded in part.
            digest.update(f"{len(rows)} {rows[0] != BLANK_ROW}".encode())
            digest.update(np.ascontiguousarray(augmentations).tobytes())
        return digest.hexdigest()


class PuzzleViews(Views):
    """Sudoku under relabellings, mazes under dihedral maps: relabelled, solved, undone; see `views_trm.draw_view`.

    An input's task is "source/row number". A Sudoku has one solution. Of a maze's several shortest paths the label is
    one, by a directional tie-break that a rotation changes, so a right answer to a rotated maze can be another path
    than the label and is then counted as wrong.

    Args:
        views: largest number of views of a puzzle, itself included; a maze has at most 8, one that is not square 4.
        seed: of the relabellings; a view is the same one whatever the number of views.
    """

    protocol = None

    def __init__(self, puzzles: PuzzleSet, views: int, seed: int = 0):
        check_views(puzzles.task, views)
        if puzzles.task not in ("sudoku", "maze"):
            raise ValueError(f"task={puzzles.task!r} has no known augmentations; allowed: sudoku, maze")
        if len(puzzles) == 0:
            raise ValueError(f"the evaluation set of task {puzzles.task!r} is empty: there is no puzzle to score")
        self.task = puzzles.task
        self.processor = puzzles.processor
        self._ids = puzzles.inputs
        self._rows = np.full(len(puzzles), BLANK_ROW) if puzzles.puzzle_ids is None else puzzles.puzzle_ids
        self._seed = seed
        views = most_views(self.task, puzzles.processor.grid_shape, views)
        self.views_of_input = np.full(len(puzzles), views, dtype=np.int64)
        self.inputs = tuple(
            TestInput(f"{source}/{number}", 0, *(answer_text(self.processor, ids_L) for ids_L in (question, answer)))
            for number, (source, question, answer) in enumerate(
                zip(puzzles.sources.tolist(), puzzles.inputs, puzzles.labels, strict=True)
            )
        )
        parts = (puzzles.fingerprint, fingerprint_inputs(self.inputs), self.task, views, seed)
        self.fingerprint = hashlib.sha256(repr(parts).encode()).hexdigest()

    def view(self, input_number: int, number: int) -> View:
        row = int(self._rows[input_number])
        return draw_view(self.task, self.processor.grid_shape, self._seed, input_number, number, row)


def protocol_of(names: Sequence[str], index: PuzzleIndex | None) -> str:
    """How a model met the tasks, as far as its table tells; a model may have been trained before it had this table.

    "transductive": all have rows, if only as the same id of another subset. "inductive": none has.
    """
    if index is None or not index.tasks:
        return UNSTATED
    known, total = sum(index.name_of(name) is not None for name in names), len(names)
    if known:
        return "transductive" if known == total else f"mixed: {known} of {total} tasks are in the puzzle table"
    return UNSTATED if index.is_numbered else "inductive"
