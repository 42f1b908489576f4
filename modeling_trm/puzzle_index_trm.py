"""PuzzleIndex: what each row of a puzzle table stands for, a task under an augmentation.

Source: arXiv 2510.04871, section 2, whose public code (dataset/build_arc_dataset.py) knows the rows by number alone and
writes what they are beside the data set. Here it travels with the weights.

Shapes: N rows of the table, of which row 0 is the blank puzzle. Bytes of an augmentation: the dihedral number 0..7,
then the colour that each of the colours 0..9 becomes.
"""

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

NUM_COLOURS = 10
AUGMENTATION_BYTES = 1 + NUM_COLOURS
NUM_DIHEDRALS = 8
IDENTITY = np.array([0, *range(NUM_COLOURS)], dtype=np.uint8)
BLANK_ROW, NO_TASK = 0, -1


def bare_id(task: str) -> str:
    """A task's id, of its name "subset/id"; a name without a subset is one."""
    return task.partition("/")[2] or task


@dataclass(frozen=True, eq=False)
class PuzzleIndex:
    """What each row of a puzzle table stands for; row 0 is the blank puzzle, which belongs to no task.

    Args:
        tasks: distinct names, each with at least one row.
        task_of_row: [N] number of the row's task in `tasks`, -1 for row 0; kept as int32.
        augmentation_of_row: [N, 11] bytes of the row's augmentation, row 0 the identity; kept as uint8.

    Raises:
        ValueError: naming the field and the first row or task that is wrong.
    """

    tasks: tuple[str, ...]
    task_of_row: np.ndarray
    augmentation_of_row: np.ndarray

    def __post_init__(self) -> None:
        tasks = _distinct("tasks", checked_names("tasks", self.tasks))
        task_of_row = _as_integers("task_of_row", self.task_of_row, np.int32, ndim=1)
        augmentation_of_row = _as_integers("augmentation_of_row", self.augmentation_of_row, np.uint8, ndim=2)
        _check_task_of_row(tasks, task_of_row)
        _check_augmentation_of_row(augmentation_of_row, len(task_of_row))
        object.__setattr__(self, "tasks", tasks)
        object.__setattr__(self, "task_of_row", task_of_row)
        object.__setattr__(self, "augmentation_of_row", augmentation_of_row)

    @classmethod
    def blank(cls) -> "PuzzleIndex":
        """The blank puzzle alone, one row: all that Sudoku and mazes need."""
        return cls((), np.array([NO_TASK], dtype=np.int32), IDENTITY[None])

    @classmethod
    def numbered(cls, count: int) -> "PuzzleIndex":
        """`count` rows of a table that nobody has described: row r > 0 is the task "r", not augmented."""
        tasks = tuple(map(str, range(1, count)))
        return cls(tasks, np.arange(-1, count - 1, dtype=np.int32), np.tile(IDENTITY, (count, 1)))

    def __len__(self) -> int:
        return len(self.task_of_row)

    def __contains__(self, task: object) -> bool:
        return task in self._number_of_task

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of names, rows and augmentations, in hex: equal for equal indices."""
        digest = hashlib.sha256(json.dumps(self.tasks).encode())
        digest.update(self.task_of_row.astype("<i4").tobytes())
        digest.update(self.augmentation_of_row.tobytes())
        return digest.hexdigest()

    @cached_property
    def is_numbered(self) -> bool:
        """Whether nobody has said what the rows are (`numbered`)."""
        return len(self) > 1 and self.fingerprint == PuzzleIndex.numbered(len(self)).fingerprint

    def name_of(self, task: str) -> str | None:
        """What the table calls a task, "subset/id" or its id alone; None for one without rows.

        The subset of a task may be an accident of the file that it is read from, and ARC-2 repeats tasks of ARC-1:
        where the name is not known, the first of the same id counts.
        """
        return task if task in self else self._name_of_id.get(bare_id(task))

    def rows_of(self, task: str) -> np.ndarray:
        """int64 row numbers of a task, ascending. Raises ValueError for an unknown task, with the nearest known."""
        number = self._number_of_task.get(task)
        if number is None:
            raise ValueError(f"task {task!r} has no row in the puzzle table of {self._described()}{self._near(task)}")
        return self._rows_by_task[self._first_of_task[number] : self._first_of_task[number + 1]]

    def select(self, tasks: Iterable[str]) -> tuple["PuzzleIndex", np.ndarray]:
        """The index of the blank row and the given tasks alone, in the present order, and their present rows (int64).

        Raises:
            ValueError: an unknown task, with the nearest known.
        """
        rows = [self.rows_of(task) for task in dict.fromkeys(checked_names("tasks", tasks))]
        kept = np.sort(np.concatenate([np.array([BLANK_ROW]), *rows]))
        numbers, task_of_row = np.unique(self.task_of_row[kept], return_inverse=True)  # -1, the blank row's, is first
        names = tuple(self.tasks[number] for number in numbers[1:])
        return PuzzleIndex(names, task_of_row.reshape(-1) - 1, self.augmentation_of_row[kept]), kept

    def joined(self, other: "PuzzleIndex") -> "PuzzleIndex":
        """This index followed by the rows of the other, without its blank row.

        Raises:
            ValueError: naming the tasks that both have.
        """
        shared = [task for task in other.tasks if task in self]
        if shared:
            names = ", ".join(map(repr, shared[:5])) + (", ..." if shared[5:] else "")
            raise ValueError(f"{len(shared)} tasks are in the puzzle table already: {names}")
        return PuzzleIndex(
            self.tasks + other.tasks,
            np.concatenate([self.task_of_row, other.task_of_row[1:] + len(self.tasks)]),
            np.concatenate([self.augmentation_of_row, other.augmentation_of_row[1:]]),
        )

    @cached_property
    def _number_of_task(self) -> dict[str, int]:
        return {task: number for number, task in enumerate(self.tasks)}

    @cached_property
    def _name_of_id(self) -> dict[str, str]:
        return {} if self.is_numbered else {bare_id(task): task for task in reversed(self.tasks)}

    @cached_property
    def _rows_by_task(self) -> np.ndarray:
        """int64 row numbers, task after task, without the blank row."""
        rows = np.argsort(self.task_of_row, kind="stable")[1:]
        rows.setflags(write=False)
        return rows

    @cached_property
    def _first_of_task(self) -> np.ndarray:
        """Where each task begins in `_rows_by_task`, and its end."""
        return np.searchsorted(self.task_of_row[self._rows_by_task], np.arange(len(self.tasks) + 1))

    def _near(self, task: Any) -> str:
        close = difflib.get_close_matches(str(task), self.tasks, n=1)
        return f"; did you mean {close[0]!r}?" if close else ""

    def _described(self) -> str:
        return f"{len(self.tasks)} tasks ({', '.join(self.tasks[:3])}{', ...' if self.tasks[3:] else ''})"


def checked_names(field: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names as a tuple. Raises ValueError, naming the field, for one name alone or what is no name."""
    if isinstance(names, str):  # it would be taken for a list of letters
        raise ValueError(f"{field}={names!r} is one name; give a list of names")
    names = tuple(names)
    for name in names:
        if not isinstance(name, str) or not name:
            raise ValueError(f"{field} holds {name!r}; allowed: names")
    return names


def _distinct(field: str, names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        repeated = Counter(names).most_common(1)[0][0]
        raise ValueError(f"{field} holds {repeated!r} twice; allowed: distinct names")
    return names


def _as_integers(field: str, values: Any, dtype: Any, ndim: int) -> np.ndarray:
    """A read-only array of that type; values that do not fit in it are refused rather than wrapped around."""
    array = np.asarray(values)
    limits = np.iinfo(dtype)
    if array.dtype.kind not in "iu" or array.ndim != ndim:
        raise ValueError(f"{field} is {array.dtype} {list(array.shape)}; allowed: {ndim}-dimensional integers")
    if array.size and (array.min() < limits.min or array.max() > limits.max):
        raise ValueError(f"{field} holds {array.min()}..{array.max()}; allowed: {limits.min}..{limits.max}")
    view = np.ascontiguousarray(array, dtype=dtype).view()
    view.setflags(write=False)
    return view


def _check_task_of_row(tasks: tuple[str, ...], task_of_row: np.ndarray) -> None:
    if len(task_of_row) == 0 or task_of_row[BLANK_ROW] != NO_TASK:
        raise ValueError(f"task_of_row[0] must be {NO_TASK}, the blank puzzle; it is {task_of_row[:1].tolist()}")
    wrong = np.flatnonzero((task_of_row[1:] < 0) | (task_of_row[1:] >= len(tasks))) + 1
    if len(wrong):
        raise ValueError(f"task_of_row[{wrong[0]}] is {task_of_row[wrong[0]]}; allowed: 0..{len(tasks) - 1}")
    empty = np.flatnonzero(np.bincount(task_of_row[1:], minlength=len(tasks)) == 0)
    if len(empty):
        raise ValueError(f"task_of_row gives no row to the task {tasks[empty[0]]!r}")


def _check_augmentation_of_row(augmentation_of_row: np.ndarray, rows: int) -> None:
    if augmentation_of_row.shape != (rows, AUGMENTATION_BYTES):
        shape = list(augmentation_of_row.shape)
        raise ValueError(f"augmentation_of_row has shape {shape}; allowed: {[rows, AUGMENTATION_BYTES]}")
    if not np.array_equal(augmentation_of_row[BLANK_ROW], IDENTITY):
        raise ValueError(f"augmentation_of_row[0] is {augmentation_of_row[BLANK_ROW].tolist()}; allowed: the identity")
    dihedral, colours = augmentation_of_row[:, 0], augmentation_of_row[:, 1:]
    # A permutation of 0..9 sets ten different bits; what is no colour is cut to one that then misses another.
    bits = np.bitwise_or.reduce(np.left_shift(1, np.minimum(colours, NUM_COLOURS), dtype=np.uint16), axis=1)
    wrong = np.flatnonzero((dihedral >= NUM_DIHEDRALS) | (bits != (1 << NUM_COLOURS) - 1))
    if len(wrong):
        raise ValueError(
            f"augmentation_of_row[{wrong[0]}] is {augmentation_of_row[wrong[0]].tolist()}; allowed: a dihedral number "
            f"0..{NUM_DIHEDRALS - 1}, then a permutation of the colours 0..{NUM_COLOURS - 1}"
        )
