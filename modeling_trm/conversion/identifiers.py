"""The reference's identifiers.json (what each row of its puzzle table stands for) to and from a PuzzleIndex.

Source: dataset/build_arc_dataset.py and dataset/common.py of the public code of arXiv 2510.04871. A list of names by
row: "<blank>", then "task" or "task|||t3|||0123456789": the dihedral map and what each of the ten colours becomes.
There a grid is recoloured and then mapped, here the other way round; recolouring works cell by cell: no difference.
"""

import re
from pathlib import Path

import numpy as np

from ..puzzle_index_trm import AUGMENTATION_BYTES, IDENTITY, NO_TASK, PuzzleIndex, bare_id
from ..utils.reading import load_json
from .checkpoint_file import ConversionError

BLANK, SEPARATOR = "<blank>", "|||"
UNUSED = "unused/<blank>"  # rows behind the first that stand for nothing: the reference can leave some free
# Its maps are: none, a quarter turn against the clock once, twice, three times, left-right and top-bottom mirroring,
# transposing, and the other diagonal. Ours: 4 * transposed first + 2 * top-bottom + left-right.
DIHEDRAL = (0, 6, 3, 5, 1, 2, 4, 7)
AUGMENTED = re.compile(r"(.+)\|\|\|t([0-7])\|\|\|(\d{10})", re.DOTALL)


def read_identifiers(path: str | Path, rows: int, subset: str | None = None) -> PuzzleIndex:
    """The index of a table of that many rows.

    Args:
        subset: put in front of every task, as "subset/task", the name that our evaluation knows an ARC task by.

    Raises:
        ConversionError: a file that is no such list, of another length than the table, or a name that cannot be read.
    """
    try:
        names = load_json(path)
    except OSError as error:
        raise ConversionError(f"{path}: cannot be read as JSON: {error}") from error
    except ValueError as error:
        raise ConversionError(str(error)) from error
    if not isinstance(names, list) or not names or names[0] != BLANK or not all(isinstance(n, str) for n in names):
        raise ConversionError(f'{path}: is no list of names that begins with "{BLANK}"')
    if len(names) != rows:
        raise ConversionError(f"{path}: names {len(names)} rows, the puzzle table has {rows}")
    numbers: dict[str, int] = {}
    task_of_row = np.full(rows, NO_TASK, dtype=np.int32)
    augmentation_of_row = np.empty((rows, AUGMENTATION_BYTES), dtype=np.uint8)
    augmentation_of_row[0] = IDENTITY
    for row, name in enumerate(names[1:], start=1):
        task, augmentation_of_row[row] = _parse(str(path), row, name)
        if task != UNUSED and subset:
            task = f"{subset}/{task}"
        task_of_row[row] = numbers.setdefault(task, len(numbers))
    return PuzzleIndex(tuple(numbers), task_of_row, augmentation_of_row)


def identifiers(index: PuzzleIndex) -> list[str] | None:
    """The reference's list for an index, or None for rows that nobody has described.

    "subset/task" becomes "task", as the reference's evaluator knows it, unless that would make one task of two.
    """
    if index.is_numbered:
        return None
    short = [bare_id(task) for task in index.tasks]
    names = short if len(set(short)) == len(short) else list(index.tasks)
    numbers = [DIHEDRAL.index(number) for number in range(len(DIHEDRAL))]
    listed = [BLANK]
    for task, augmentation in zip(index.task_of_row[1:].tolist(), index.augmentation_of_row[1:]):
        if index.tasks[task] == UNUSED:
            listed.append(BLANK)
        elif np.array_equal(augmentation, IDENTITY):
            listed.append(names[task])
        else:
            dihedral, *colours = augmentation.tolist()
            listed.append(f"{names[task]}{SEPARATOR}t{numbers[dihedral]}{SEPARATOR}{''.join(map(str, colours))}")
    return listed


def _parse(path: str, row: int, name: str) -> tuple[str, np.ndarray]:
    if name == BLANK:
        return UNUSED, IDENTITY
    if SEPARATOR not in name and name:
        return name, IDENTITY
    match = AUGMENTED.fullmatch(name)
    if match is None or sorted(match[3]) != list("0123456789"):
        raise ConversionError(
            f"{path}: row {row} is {name!r}; allowed: a task's name, maybe followed by {SEPARATOR}t0..t7{SEPARATOR} "
            f"and a permutation of the ten digits"
        )
    return match[1], np.array([DIHEDRAL[int(match[2])], *map(int, match[3])], dtype=np.uint8)
