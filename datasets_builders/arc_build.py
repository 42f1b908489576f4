"""build_arc: picks tasks, divides their pairs, checks them for leaks, draws augmentations, numbers the puzzles.

Everything is a pure function of tasks and options: tasks are chosen and augmented by hashes of (seed, name), so neither
the number of workers nor the other subsets change how a task is augmented.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
from tqdm import tqdm

from datasets_builders.arc_leaks import TrainedPair, find_leaks
from datasets_builders.arc_set import ARC_SPLITS, ArcOptions, ArcSet, PairRef
from datasets_builders.validation import DataError
from modeling_trm.arc_augmentation_trm import draw_augmentations
from modeling_trm.arc_task_trm import ArcTask, task_name
from modeling_trm.grid_text_trm import option
from modeling_trm.puzzle_index_trm import IDENTITY, PuzzleIndex


def build_arc(tasks_by_subset: Mapping[str, Sequence[ArcTask]], options: ArcOptions, *, num_workers: int = 1) -> ArcSet:
    """The ARC set of these tasks.

    Args:
        tasks_by_subset: the tasks of each of `options.all_subsets`; others are ignored.
        num_workers: processes that draw augmentations; the result does not depend on it.

    Raises:
        DataError: a subset is missing, nothing is left to train on or to ask, or pairs leak (on_leak="error").
    """
    tasks, too_large = _pick_tasks(tasks_by_subset, options)
    splits = _divide_pairs(tasks, _draw_validation_tasks(tasks, options), options)
    leaks = _check_leaks(tasks, splits, options)
    _check_not_empty(tasks, splits, options)
    trained = [tasks[place] for place in dict.fromkeys(ref.task for ref in splits["train"])]
    index = _number_puzzles(trained, options, num_workers)
    fewest = int(np.bincount(index.task_of_row[1:]).min()) - 1
    report = {"too_large": too_large, "leaks": leaks, "fewest_augmentations": fewest}
    return ArcSet(tasks, {split: tuple(refs) for split, refs in splits.items()}, index, options, report)


def _pick_tasks(
    tasks_by_subset: Mapping[str, Sequence[ArcTask]], options: ArcOptions
) -> tuple[tuple[ArcTask, ...], dict[str, list[str]]]:
    """The tasks, subset after subset and by id, and the ids of those that are too large for the canvas."""
    picked: list[ArcTask] = []
    too_large: dict[str, list[str]] = {}
    for subset in options.all_subsets:
        if subset not in tasks_by_subset:
            raise DataError(f"no tasks are given for subset {subset!r}, only for {', '.join(tasks_by_subset)}")
        tasks = sorted(tasks_by_subset[subset], key=lambda task: task.id)
        too_large[subset] = [task.id for task in tasks if _largest_side(task) > options.max_grid_size]
        fitting = [task for task in tasks if _largest_side(task) <= options.max_grid_size]
        if not fitting:
            raise DataError(f"subset {subset!r} has no task that fits max_grid_size={options.max_grid_size}")
        size = len(fitting) if options.max_tasks is None else options.max_tasks
        kept = _smallest_hashes([task_name(task) for task in fitting], size, f"subset {options.seed}")
        picked += [task for task in fitting if task_name(task) in kept]
    return tuple(picked), {subset: ids for subset, ids in too_large.items() if ids}


def _largest_side(task: ArcTask) -> int:
    grids = (grid for pair in (*task.train, *task.test) for grid in (pair.input, pair.output))
    return max(side for grid in grids if grid is not None for side in grid.shape)


def _smallest_hashes(names: Sequence[str], size: int, purpose: str) -> set[str]:
    """A random choice that depends on each name alone, so that a smaller choice is part of a larger one."""
    return set(sorted(names, key=lambda name: hashlib.blake2b(f"{purpose} {name}".encode()).digest())[:size])


def _draw_validation_tasks(tasks: Sequence[ArcTask], options: ArcOptions) -> set[str]:
    """The names of the tasks whose tests are held out to choose checkpoints by."""
    is_test_only = set(options.subsets) == {options.test_subset}
    candidates = [
        task_name(task)
        for task in tasks
        if (task.subset != options.test_subset or is_test_only)
        and task.test
        and all(pair.output is not None for pair in task.test)
    ]
    if options.validation_tasks > len(candidates):
        raise DataError(
            f"validation_tasks={options.validation_tasks} is more than the {len(candidates)} tasks there are for it"
        )
    return _smallest_hashes(candidates, options.validation_tasks, f"validation {options.seed}")


def _divide_pairs(tasks: Sequence[ArcTask], validation: set[str], options: ArcOptions) -> dict[str, list[PairRef]]:
    """Every pair to one of ARC_SPLITS."""
    splits: dict[str, list[PairRef]] = {split: [] for split in ARC_SPLITS}
    for place, task in enumerate(tasks):
        is_asked = task.subset == options.test_subset
        demonstrations = "context" if is_asked and options.protocol == "inductive" else "train"
        splits[demonstrations] += [PairRef(place, "train", number) for number in range(len(task.train))]
        for number, pair in enumerate(task.test):
            if task_name(task) in validation:
                split = "validation"
            elif is_asked:
                split = "test"
            else:
                split = "context" if pair.output is None else "train"
            splits[split].append(PairRef(place, "test", number))
    return splits


def _check_not_empty(tasks: Sequence[ArcTask], splits: Mapping[str, Sequence[PairRef]], options: ArcOptions) -> None:
    """Raise DataError where nothing is left to train on or to ask, saying why."""
    if not any(task.test for task in tasks if task.subset == options.test_subset):
        raise DataError(
            f"no task of the subset {options.test_subset!r} has a test: lists of pairs (RE-ARC) are demonstrations, of "
            'which nothing is asked; give tasks as {"train": [pairs], "test": [pairs]}'
        )
    for split, advice in (("train", "name more subsets or tasks"), ("test", "choose fewer validation_tasks")):
        if not splits[split]:
            raise DataError(f"no pair is left for the split {split!r} of subsets={options.all_subsets}; {advice}")


def _check_leaks(tasks: Sequence[ArcTask], splits: dict[str, list[PairRef]], options: ArcOptions) -> dict[str, Any]:
    """What of the held-out tests is trained on, JSON-ready; on_leak="drop" moves such trained pairs to the context."""
    trained = [TrainedPair(tasks[ref.task], ref.number, ref.role == "test") for ref in splits["train"]]
    held_out = dict.fromkeys(ref.task for split in ("validation", "test") for ref in splits[split])
    report = find_leaks(trained, [tasks[place] for place in held_out])
    # A shared demonstration gives nothing away where those of the test tasks are trained on by design, and a test input
    # that is trained on with another output (of small grids, by chance) does not give the answer away.
    is_inductive = options.protocol == "inductive"
    offending = {
        (f"{leak.trained_subset}/{leak.trained_task}", leak.trained_is_test, leak.trained_pair - 1)
        for leak in report.findings
        if leak.kind == "answer"
        or (is_inductive and leak.kind == "demonstration" and leak.subset == options.test_subset)
    }
    if offending and options.on_leak == "error":
        raise DataError(
            f"{len(offending)} trained pairs leak; {option('on_leak', 'drop')} does not train on them, 'report' does:\n"
            f"{report.summary()}"
        )
    dropped = []
    if options.on_leak == "drop":
        dropped = [
            ref for ref in splits["train"] if (task_name(tasks[ref.task]), ref.role == "test", ref.number) in offending
        ]
        splits["train"] = [ref for ref in splits["train"] if ref not in set(dropped)]
        splits["context"] = sorted(splits["context"] + dropped)  # "test" < "train": any fixed order will do
    found = report.to_dict()
    return {
        "offending_pairs": len(offending),
        "dropped_pairs": len(dropped),
        "summary": report.summary(),
        "counts": found["counts"],
        "findings": list(found["findings"]),
    }


def _number_puzzles(tasks: Sequence[ArcTask], options: ArcOptions, num_workers: int) -> PuzzleIndex:
    """Row 0 the blank puzzle, then task after task, each as it is and then its augmentations."""
    with _mapper(num_workers) as run:
        asked = (options.num_augmentations, options.seed, options.keep_colours)
        drawn = run(draw_augmentations, tasks, *map(repeat, asked))
        # disable=None: no bar where nobody looks.
        rows = list(tqdm(drawn, "augmentations", total=len(tasks), unit="task", disable=None))
    task_of_row = np.repeat(np.arange(-1, len(tasks), dtype=np.int32), [1, *map(len, rows)])
    return PuzzleIndex(tuple(map(task_name, tasks)), task_of_row, np.concatenate([IDENTITY[None], *rows]))


@contextmanager
def _mapper(num_workers: int) -> Iterator[Callable[..., Iterable[np.ndarray]]]:
    """map, over so many processes; results come in the order of the tasks either way."""
    if num_workers < 1:
        raise DataError(f"num_workers={num_workers} must be at least 1")
    if num_workers == 1:
        yield map
        return
    with ProcessPoolExecutor(num_workers, mp_context=_context()) as pool:
        yield partial(pool.map, chunksize=16)


def _context() -> BaseContext:
    """Where workers come from: a server without threads that imports once what they need; on Windows each does alone.

    A fork of this process could wait for ever for a lock that one of its threads holds.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([draw_augmentations.__module__])
    return context
