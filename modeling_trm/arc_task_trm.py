"""ARC tasks as values, and the official form of one: {"train": [{"input": grid, "output": grid}, ...], "test": [...]}.

Source: github.com/fchollet/ARC-AGI. An error names file, task, pair (train 2, test 1; counted from 1) and row.

Shapes: a grid is uint8 [height, width] of colours 0..9, each side 1..30.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_SIDE = 30
NUM_COLOURS = 10
PARTS = ("train", "test")
FORM = '{"train": [pairs], "test": [pairs]}, or a list of pairs'
ID_KEYS = ("id", "task_id", "name")  # under which the tasks of a list have their ids, the first of them that there is


@dataclass(frozen=True, eq=False)
class Pair:
    """A demonstration or a test: its input, and its output unless that is kept secret."""

    input: np.ndarray
    output: np.ndarray | None


@dataclass(frozen=True, eq=False)
class ArcTask:
    """A task: demonstrations (`train`) and tests. The same id may occur in two subsets (ARC-2 repeats ARC-1 tasks)."""

    id: str
    subset: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]

    @property
    def extent(self) -> tuple[int, int]:
        """(height, width) that hold every grid it shows: the answers to its tests are not among them."""
        grids = [grid for pair in self.train for grid in (pair.input, pair.output) if grid is not None]
        shapes = np.array([grid.shape for grid in (*grids, *(pair.input for pair in self.test))])
        height, width = shapes.max(axis=0).tolist()
        return height, width


def tasks_of(content: Any, name: str, source: str) -> dict[str, Any]:
    """{id: task, its pairs not yet read} of what a JSON file holds. Raises ValueError naming the file.

    That is a task or a list of pairs, named as the file; tasks by their ids, or as a list; or the pairs of every task
    by its id under "train" and "test". What is no task is left to `arc_task`, which names it.
    """
    if isinstance(content, Mapping) and isinstance(content.get("train"), list):
        return {name: content}
    if isinstance(content, Mapping) and all(isinstance(content.get(part), Mapping) for part in PARTS):
        ids = {**content["train"], **content["test"]}
        tasks = {task: {part: content[part][task] for part in PARTS if task in content[part]} for task in ids}
        return tasks | {name: beside for name, beside in content.items() if name not in PARTS}
    if isinstance(content, list) and _holds_tasks(content):
        tasks = {_id_in_list(content, number, name, source): task for number, task in enumerate(content)}
        if len(tasks) < len(content):
            raise ValueError(f"{source}: has {len(content)} tasks, but only {len(tasks)} different ids")
        return tasks
    if isinstance(content, list):
        return {name: content}
    if not isinstance(content, Mapping):
        raise ValueError(f"{source}: holds a {type(content).__name__}; expected a task, or tasks by their ids")
    return dict(content)


def _holds_tasks(content: Any) -> bool:
    """Whether these are tasks in the official form, and not one: a list of them, or such under other names."""
    found = list(content.values()) if isinstance(content, Mapping) else content if isinstance(content, list) else []
    return all(isinstance(task, Mapping) for task in found) and any("train" in task for task in found)


def _id_in_list(tasks: list[Any], number: int, name: str, source: str) -> str:
    """The id that a task of a list says it has; one that is alone may be named as its file."""
    said = [tasks[number][key] for key in ID_KEYS if tasks[number].get(key) is not None]
    if not said and len(tasks) > 1:  # its place in the list is no name: it changes with the tasks before it
        raise ValueError(f'{source}: task {number + 1} of the list has no id; give each an "id"')
    return str(said[0]) if said else name


def arc_task(task: Any, name: str, subset: str, source: str) -> ArcTask:
    """A task from the official form, or from a list of demonstrations.

    Raises:
        ValueError: naming task, pair and row; or the id, where no file and no "subset/id" can be called so.
    """
    if name.strip() in ("", ".", "..") or set(name) & set("/\\\0"):
        raise ValueError(
            f"{source}: a task has the id {name!r}, which is not allowed, for files are called by it; allowed: a text "
            "without slashes and backslashes, other than '.' and '..'; give it another id"
        )
    where = f"{source}: task {name}"
    if isinstance(task, list) and task and not _holds_tasks(task):
        return ArcTask(name, subset, _parse_pairs(task, f"{where}, train", True), ())
    if not isinstance(task, Mapping) or not all(isinstance(task.get(part), list) for part in PARTS):
        raise ValueError(f"{where}: {_instead_of_a_task(task)}; a task must be {FORM}")
    for part, meaning in zip(PARTS, ("demonstration", "test pair"), strict=True):
        if not task[part]:
            raise ValueError(f"{where}: has no {meaning} (its list {part!r} is empty)")
    train = _parse_pairs(task["train"], f"{where}, train", True)
    return ArcTask(name, subset, train, _parse_pairs(task["test"], f"{where}, test", False))


def _instead_of_a_task(found: Any) -> str:
    """What stands where a task should, and what to do."""
    if _holds_tasks(found):
        return "is no task but holds tasks; leave out what is around them, so that the file holds them and nothing else"
    if isinstance(found, Mapping):
        wrong = [part for part in PARTS if not isinstance(found.get(part), list)]
        if any(part in found for part in PARTS):
            return f"has no {'list of pairs' if wrong[0] in found else 'entry'} under {wrong[0]!r}"
        keys = ", ".join(map(repr, list(found)[:5])) or "nothing"
        return f"is an object with {keys}; leave it out of the file if it is no task"
    return f"is {repr(found)[:60]}; leave it out of the file if it is no task"


def _parse_pairs(pairs: list[Any], where: str, needs_output: bool) -> tuple[Pair, ...]:
    return tuple(_parse_pair(pair, f"{where} {number}", needs_output) for number, pair in enumerate(pairs, start=1))


def _parse_pair(pair: Any, where: str, needs_output: bool) -> Pair:
    if not isinstance(pair, Mapping) or "input" not in pair or (needs_output and pair.get("output") is None):
        raise ValueError(
            f'{where}: must be {{"input": grid, "output": grid}}{"" if needs_output else ", output optional"}'
        )
    output = pair.get("output")
    return Pair(
        arc_grid(pair["input"], f"{where}, input"),
        None if output is None else arc_grid(output, f"{where}, output"),
    )


def arc_grid(rows: Any, where: str) -> np.ndarray:
    """uint8 [height, width] of a list of rows. Raises ValueError, its message beginning with `where`."""
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise ValueError(f"{where}: is no grid; a grid is a list of rows, each a list of colours 0..{NUM_COLOURS - 1}")
    height, width = len(rows), len(rows[0]) if rows else 0
    if not height or not width:
        raise ValueError(f"{where}: the grid is empty")
    for number, row in enumerate(rows, start=1):
        if len(row) != width:
            raise ValueError(f"{where}, row {number}: has {len(row)} cells, row 1 has {width}; a grid is rectangular")
        wrong = [cell for cell in row if type(cell) is not int or not 0 <= cell < NUM_COLOURS]
        if wrong:
            raise ValueError(f"{where}, row {number}: colour {wrong[0]!r}; allowed: whole numbers 0..{NUM_COLOURS - 1}")
    if max(height, width) > MAX_SIDE:
        raise ValueError(f"{where}: the grid is {height} x {width}; at most {MAX_SIDE} x {MAX_SIDE} is allowed")
    return np.array(rows, dtype=np.uint8)


def task_name(task: ArcTask) -> str:
    """The task's name in a puzzle index. The subset is part of it, for ARC-2 has tasks of ARC-1 under their ids."""
    return f"{task.subset}/{task.id}"
