"""Views of test inputs: each input under several augmentations, and the way back from an answer to the input's frame.

Source: TRM (arXiv 2510.04871), public evaluator: every augmentation of a task that the puzzle table has a row for is
run with that row, cropped, undone, and votes. A view is one augmentation of one input; view 0 is the input as it is.

Shapes: N test inputs, V views of an input, B items of a batch, L positions. An item is (input number, view number).
"""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from datasets_builders.arc_augmentation import draw_augmentations
from datasets_builders.arc_set import task_name
from datasets_builders.arc_tasks import ArcTask
from datasets_builders.features import PuzzleSet

from ..augmentation_trm import NUM_DIHEDRALS, Dihedral, MazeAugmentation, SudokuAugmentation, SudokuDraws
from ..processing_trm import FIRST_COLOUR_ID, NUM_COLOURS, GridProcessor, colours_to_text, crop_colours
from ..puzzle_index_trm import BLANK_ROW, IDENTITY, PuzzleIndex
from .folder import TestInput, fingerprint_inputs

Items = Sequence[tuple[int, int]]
COLOURS = np.arange(NUM_COLOURS, dtype=np.uint8)
INVERSE_DIHEDRALS = [Dihedral.from_number(number).inverse() for number in range(NUM_DIHEDRALS)]
UNSTATED = "unstated"  # nothing says whether the model was trained on demonstrations of the tasks
NUM_VIEWS_WITHOUT_ROWS = 1000  # of a task that the table does not know; the published number of augmentations


class Views(Protocol):
    """What `collect_votes` runs. `fingerprint` changes with the inputs and with every augmentation."""

    @property
    def task(self) -> str: ...
    @property
    def protocol(self) -> str | None: ...
    @property
    def processor(self) -> GridProcessor: ...
    @property
    def inputs(self) -> tuple[TestInput, ...]: ...
    @property
    def views_of_input(self) -> np.ndarray: ...  # int64 [N], at least 1 each
    @property
    def fingerprint(self) -> str: ...
    def batch(self, items: Items) -> tuple[np.ndarray, np.ndarray]: ...  # input ids uint8 [B, L], puzzle ids int64 [B]
    def undo(self, input_number: int, view: int, answer_ids: np.ndarray) -> str: ...  # grid text, "" for no grid


class ArcViews:
    """The test inputs of ARC tasks under the augmentations that the model's own table has rows for.

    A task without rows (the model was not trained on its demonstrations, or has no table) is run with the blank row
    under augmentations drawn here. Grids stand untranslated on the canvas, as in the published evaluation.

    Args:
        index: what the rows of the model's table stand for; None for a model without a table. A task's name in it is
            "subset/id".
        max_augmentations: largest number of views of an input, the unaugmented one included. Default: all rows of the
            task; for a task without rows NUM_VIEWS_WITHOUT_ROWS.
        seed: of the augmentations drawn for tasks without rows.
        protocol: how the model met the tasks; by default said by the index: a task with rows has been trained on.

    Raises:
        ValueError: no task at all, a task given twice, or a grid that does not fit the model's canvas.
    """

    task = "arc"

    def __init__(
        self,
        tasks: Sequence[ArcTask],
        index: PuzzleIndex | None,
        processor: GridProcessor,
        max_augmentations: int | None = None,
        seed: int = 0,
        protocol: str | None = None,
    ):
        _check_number_of_views(max_augmentations)
        if not tasks:
            raise ValueError("there is no arc task to evaluate")
        self.processor = processor
        self._rows: list[np.ndarray] = []  # of each task: int64 [V], the view's row of the table
        self._augmentations: list[np.ndarray] = []  # of each task: uint8 [V, 11]
        self._task_of_input: list[int] = []
        self._grids: list[np.ndarray] = []
        inputs: list[TestInput] = []
        names = [task_name(task) for task in tasks]
        for number, (name, task) in enumerate(zip(names, tasks, strict=True)):
            if name in names[:number]:
                raise ValueError(f"task {name!r} is given twice")
            rows, augmentations = _views_of_task(task, index, max_augmentations, seed)
            self._rows.append(rows)
            self._augmentations.append(augmentations)
            for pair_number, pair in enumerate(task.test):
                reference = None if pair.output is None else colours_to_text(pair.output)
                inputs.append(TestInput(name, pair_number, colours_to_text(pair.input), reference))
                self._task_of_input.append(number)
                self._grids.append(pair.input)
        self.inputs = tuple(inputs)
        self.views_of_input = np.array([len(self._rows[number]) for number in self._task_of_input], dtype=np.int64)
        self.protocol = protocol_of(names, index) if protocol is None else protocol
        self.fingerprint = self._fingerprint()
        self._encoded: dict[tuple[int, int], np.ndarray] = {}
        for number in range(len(inputs)):  # all of them now: a grid that does not fit shows before anything runs
            self._tokens(number, 0)

    def batch(self, items: Items) -> tuple[np.ndarray, np.ndarray]:
        places = [(self._task_of_input[number], view) for number, view in items]
        augmentations_BA = np.stack([self._augmentations[task][view] for task, view in places])
        tokens = [self._tokens(number, int(a[0])) for (number, _), a in zip(items, augmentations_BA, strict=True)]
        table_BV = np.empty((len(items), self.processor.vocab_size), dtype=np.uint8)
        table_BV[:, :FIRST_COLOUR_ID] = np.arange(FIRST_COLOUR_ID)
        table_BV[:, FIRST_COLOUR_ID:] = augmentations_BA[:, 1:] + FIRST_COLOUR_ID
        input_ids_BL = np.take_along_axis(table_BV, np.stack(tokens).astype(np.intp), axis=1)
        return input_ids_BL, np.array([self._rows[task][view] for task, view in places], dtype=np.int64)

    def undo(self, input_number: int, view: int, answer_ids: np.ndarray) -> str:
        grid = crop_colours(answer_ids.reshape(self.processor.grid_shape))
        dihedral, *colours = self._augmentations[self._task_of_input[input_number]][view].tolist()
        original = np.empty(NUM_COLOURS, dtype=np.uint8)
        original[colours] = COLOURS
        return colours_to_text(original[INVERSE_DIHEDRALS[dihedral].apply(grid)])

    def _tokens(self, number: int, dihedral: int) -> np.ndarray:
        """uint8 [L]: the input under a dihedral map, its colours as they are. Views differ mostly in their colours."""
        key = (number, dihedral)
        if key not in self._encoded:
            moved = Dihedral.from_number(dihedral).apply(self._grids[number])
            try:
                self._encoded[key] = self.processor.encode(moved.tolist()).numpy().astype(np.uint8)
            except ValueError as error:
                where = f"task {self.inputs[number].task_id!r}, test {self.inputs[number].pair + 1}"
                raise ValueError(f"{where}: {error}") from error
        return self._encoded[key]

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(fingerprint_inputs(self.inputs).encode())
        for rows, augmentations in zip(self._rows, self._augmentations, strict=True):
            # Whether the task has rows, not which: the same table holds it at other rows when loaded in part.
            digest.update(f"{len(rows)} {rows[0] != BLANK_ROW}".encode())
            digest.update(np.ascontiguousarray(augmentations).tobytes())
        return digest.hexdigest()


class PuzzleViews:
    """Sudoku under relabellings, mazes under dihedral maps: relabelled, solved, undone.

    An input's task is "source/row number". A Sudoku has one solution. Of a maze's several shortest paths the label is
    one, by a directional tie-break that a rotation changes, so a right answer to a rotated maze can be another path
    than the label and is then counted as wrong.

    Args:
        max_augmentations: largest number of views of a puzzle, the unaugmented one included; a maze has at most 8,
            one that is not square 4.
        seed: of the relabellings; a view is the same one whatever the number of views.
    """

    protocol = None

    def __init__(self, puzzles: PuzzleSet, max_augmentations: int, seed: int = 0):
        _check_number_of_views(max_augmentations)
        if puzzles.task not in ("sudoku", "maze"):
            raise ValueError(f"task={puzzles.task!r} has no known augmentations; allowed: sudoku, maze")
        if len(puzzles) == 0:
            raise ValueError(f"the evaluation set of task {puzzles.task!r} is empty: there is no puzzle to score")
        self.task = puzzles.task
        self.processor = puzzles.processor
        self._puzzles = puzzles
        self._seed = seed
        self._shape = tuple(puzzles.processor.grid_shape)
        if self.task == "maze":
            max_augmentations = min(max_augmentations, 8 if self._shape[0] == self._shape[1] else 4)
        self.views_of_input = np.full(len(puzzles), max_augmentations, dtype=np.int64)
        self.inputs = tuple(
            TestInput(f"{source}/{number}", 0, self._text(question_L), self._text(answer_L))
            for number, (source, question_L, answer_L) in enumerate(
                zip(puzzles.sources.tolist(), puzzles.inputs, puzzles.labels, strict=True)
            )
        )
        parts = (puzzles.fingerprint, fingerprint_inputs(self.inputs), self.task, max_augmentations, seed)
        self.fingerprint = hashlib.sha256(repr(parts).encode()).hexdigest()

    def batch(self, items: Items) -> tuple[np.ndarray, np.ndarray]:
        inputs_B = np.array([number for number, _ in items], dtype=np.int64)
        views_B = np.array([view for _, view in items], dtype=np.int64)
        ids_BL = self._puzzles.inputs[inputs_B]
        if self.task == "sudoku":
            moved_BL = SudokuDraws.draw(self._seed, _counters(inputs_B, views_B), self._shape[0]).apply(ids_BL)
            ids_BL = np.where(views_B[:, None] == 0, ids_BL, moved_BL)
        else:
            grids = [
                MazeAugmentation.from_number(view).apply(ids_L.reshape(self._shape)).reshape(-1)
                for view, ids_L in zip(views_B.tolist(), ids_BL, strict=True)
            ]
            ids_BL = np.stack(grids)
        puzzle_ids = self._puzzles.puzzle_ids
        return ids_BL, np.full(len(items), BLANK_ROW) if puzzle_ids is None else puzzle_ids[inputs_B]

    def undo(self, input_number: int, view: int, answer_ids: np.ndarray) -> str:
        if view and self.task == "sudoku":
            counter = int(_counters(np.array([input_number]), np.array([view]))[0])
            answer_ids = SudokuAugmentation.draw(self._seed, counter, self._shape[0]).inverse().apply(answer_ids)
        elif view:
            inverse = MazeAugmentation.from_number(view).inverse()
            answer_ids = inverse.apply(answer_ids.reshape(self._shape)).reshape(-1)
        return self._text(answer_ids)

    def _text(self, ids_L: np.ndarray) -> str:
        text = self.processor.decode(ids_L)
        return text if isinstance(text, str) else ""


def _views_of_task(
    task: ArcTask, index: PuzzleIndex | None, max_augmentations: int | None, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(rows int64 [V], augmentations uint8 [V, 11]) of a task's views, the identity first."""
    name = task_name(task)
    if index is None or name not in index:
        count = NUM_VIEWS_WITHOUT_ROWS if max_augmentations is None else max_augmentations
        drawn = draw_augmentations(task, count - 1, seed)
        return np.full(len(drawn), BLANK_ROW, dtype=np.int64), drawn
    rows = index.rows_of(name)
    is_augmented = (index.augmentation_of_row[rows] != IDENTITY).any(axis=1)
    rows = rows[np.argsort(is_augmented, kind="stable")][:max_augmentations]
    return rows, index.augmentation_of_row[rows]


def protocol_of(names: Sequence[str], index: PuzzleIndex | None) -> str:
    """How a model met the tasks, as far as its table tells; a model may have been trained before it had this table.

    "transductive": all have rows. "inductive": none has, under this name or as the same id of another subset.
    """
    if index is None or not index.tasks or not all("/" in task for task in index.tasks):
        return UNSTATED
    known = sum(name in index for name in names)
    if known:
        total = len(names)
        return "transductive" if known == total else f"mixed: {known} of {total} tasks are in the puzzle table"
    ids = {task.rpartition("/")[2] for task in index.tasks}
    elsewhere = sum(name.rpartition("/")[2] in ids for name in names)
    return f"{UNSTATED}: {elsewhere} tasks are in the table under another subset" if elsewhere else "inductive"


def _check_number_of_views(max_augmentations: int | None) -> None:
    if max_augmentations is not None and max_augmentations < 1:
        raise ValueError(f"max_augmentations must be at least 1, got {max_augmentations}")


def _counters(inputs: np.ndarray, views: np.ndarray) -> np.ndarray:
    """One number for every (input, view), whatever the number of views."""
    return (views << 32) + inputs
