"""Puzzles as users have them at hand: strings, rows, arrays, one or many, read into token ids.

One puzzle of a task whose grids are strings (Sudoku, maze, "grid") is a string, a flat list or array of its cells, or
rows, each a string, a list or an array; a cell is a character or a whole number (of a Sudoku 0 is a blank; 5.0 is one
too, True is not). One ARC puzzle is rows of colours, or their text "012/340". In the place of any of these may stand
{"grid": it}, for ARC also {"grid": it, "puzzle_task": name of a task in the puzzle table}, or a row of a table, whose
question it is, by the names that puzzle_columns_trm knows. Several puzzles are a list of these. A Sudoku whose clues
contradict each other and a maze without one start and one goal are refused.

Shapes: L = height * width positions.
"""

import difflib
import math
import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .arc_task_trm import ArcTask
from .grid_text_trm import as_lists, shown
from .processing_trm import GridProcessor, text_to_colours
from .puzzle_columns_trm import COLUMN_NAMES, choose_columns, singular

PUZZLE_KEYS = ("grid", "puzzle_task")
FILES = (".txt", ".csv", ".json", ".jsonl", ".parquet")  # endings that no puzzle has


@dataclass(frozen=True, eq=False)
class Puzzle:
    """A puzzle that was read and found to be one.

    Args:
        input_ids: int64 [L].
        puzzle_task: the ARC task whose rows of the puzzle table are used; None for the blank row.
        arc_task: the task that an ARC grid is a test of, where it came with it.
        name: where it was given, for people.
        written: the characters that it is written with, in the order of the processor's; None for those themselves.
    """

    input_ids: np.ndarray
    puzzle_task: str | None = None
    arc_task: ArcTask | None = None
    name: str = ""
    written: str | None = None

    def as_written(self, grid: Any, processor: GridProcessor) -> Any:
        """A text in the processor's characters in those of this puzzle; anything else is itself."""
        return self._translated(grid, processor.characters, self.written) if isinstance(grid, str) else grid

    def as_read(self, grid: Any, processor: GridProcessor) -> Any:
        """The way back."""
        return self._translated(grid, self.written, processor.characters) if isinstance(grid, str) else grid

    def _translated(self, grid: str, theirs: str | None, others: str | None) -> str:
        return grid if theirs is None or others is None else grid.translate(str.maketrans(theirs, others))


def split_puzzles(inputs: Any, processor: GridProcessor) -> list[Any] | None:
    """The puzzles of a list or an array of several; None where it is one puzzle, which stands for itself.

    Lines of text or cells can be the rows of one puzzle or a puzzle each: their length decides, that of a row or that
    of a whole grid.
    """
    inputs = as_lists(inputs)
    if not isinstance(inputs, list):
        return None
    if processor.task == "arc":
        is_one = bool(inputs) and not any(_depth(part) > 1 or isinstance(part, str | dict | Puzzle) for part in inputs)
        return None if is_one else inputs
    is_flat = bool(inputs) and all(_is_cell(part) for part in inputs) and not _are_texts(inputs, processor)
    return None if is_flat or _are_rows(inputs, processor) else inputs


def read_puzzle(puzzle: Any, processor: GridProcessor, characters: str | None = None) -> Puzzle:
    """One puzzle; one that was read before is itself.

    Args:
        characters: what a grid of text is written with, if not as grid_text_trm says or where that can mean two things.

    Raises:
        ValueError: naming the place and what is allowed, or the clues that contradict each other.
    """
    if isinstance(puzzle, Puzzle):
        return puzzle
    task = None
    if isinstance(puzzle, dict) and "grid" not in puzzle and any(map(_names_a_question, puzzle)):
        puzzle = puzzle[choose_columns(list(puzzle), None, "a puzzle as a dict", needed=("question",))["question"]]
    if isinstance(puzzle, dict):
        unknown = [key for key in puzzle if key not in PUZZLE_KEYS]
        if unknown or "grid" not in puzzle:
            close = difflib.get_close_matches(str(unknown[0]), PUZZLE_KEYS, n=1) if unknown else []
            raise ValueError(
                f"a puzzle as a dict has the keys 'grid' and, for ARC, 'puzzle_task', or a row's 'question'; got "
                f"{list(puzzle)}" + (f"; did you mean {close[0]!r}?" if close else "")
            )
        puzzle, task = puzzle["grid"], puzzle.get("puzzle_task")
        if task is not None and (processor.task != "arc" or not isinstance(task, str)):
            raise ValueError(f"puzzle_task={task!r} is not allowed; allowed: the name of an ARC task, as a string")
    grid = as_lists(puzzle)
    if isinstance(grid, str) and (os.path.isfile(grid) or grid.endswith(FILES)):
        here = "is a file" if os.path.isfile(grid) else "is the name of a file, which is not here"
        raise ValueError(f"{grid!r} {here}; a pipeline takes files as pathlib.Path({grid!r})")
    if processor.task != "arc":
        cells, written = replace(processor.reader, written=characters).read_as_written(grid)
        return puzzle_of_cells(cells, processor, written=None if written == processor.characters else written)
    colours = text_to_colours(grid).tolist() if isinstance(grid, str) else grid
    if not isinstance(colours, list) or not all(isinstance(row, list) for row in colours):
        raise ValueError(f"an arc grid is a list of rows of colours 0..9 or text like '012/340'; got {shown(puzzle)}")
    for row, colours_w in enumerate(colours, start=1):
        for column, colour in enumerate(colours_w, start=1):
            if isinstance(colour, bool):  # Python takes it for 0 or 1
                raise ValueError(f"row {row}, column {column}: colour {colour!r} is not allowed; allowed: 0..9")
    return Puzzle(processor.encode(colours).numpy(), task)


def puzzle_of_cells(cells: str, processor: GridProcessor, name: str = "", written: str | None = None) -> Puzzle:
    """The puzzle of a grid in the processor's own text. Raises ValueError as `read_puzzle`."""
    input_ids = processor.encode_cells(cells)
    _check_clues(cells, processor)
    return Puzzle(input_ids, name=name, written=written)


def _names_a_question(key: Any) -> bool:
    return isinstance(key, str) and singular(key) in COLUMN_NAMES["question"]


def _check_clues(cells: str, processor: GridProcessor) -> None:
    """Raise a ValueError for a puzzle that has no solution at first sight, which a model would answer all the same."""
    height, width = processor.grid_shape
    if processor.task == "maze":
        for character, expected in (("S", 1), ("G", 1), ("o", 0)):
            if cells.count(character) != expected:
                raise ValueError(f"the maze has {cells.count(character)} cells {character!r}, expected {expected}")
    if processor.task == "sudoku":
        side = math.isqrt(height)
        first: dict[tuple[str, int, str], str] = {}  # (kind of unit, its number, digit): place
        for position, digit in enumerate(cells):
            row, column = divmod(position, width)
            place = f"row {row + 1}, column {column + 1}"
            units = {"row": row, "column": column, "box": row // side * side + column // side}
            for kind, number in units.items() if digit != "." else ():
                other = first.setdefault((kind, number, digit), place)
                if other != place:
                    raise ValueError(f"{place}: {digit!r} is given twice in {kind} {number + 1}, also at {other}")


def _is_cell(value: Any) -> bool:
    return not isinstance(value, list | dict | Puzzle) and not (isinstance(value, str) and len(value) != 1)


def _depth(value: Any) -> int:
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _are_texts(lines: list[Any], processor: GridProcessor) -> bool:
    """Whether single characters are puzzles of one cell each, which only a 1 x 1 grid has."""
    return processor.seq_len == 1 and all(isinstance(line, str) for line in lines)


def _are_rows(lines: list[Any], processor: GridProcessor) -> bool:
    """Whether these are the rows of one puzzle: lines whose longest is nearer to a row than to a whole grid."""
    height, width = processor.grid_shape
    if height == 1 or not lines or not all(isinstance(line, str) or _is_flat(line) for line in lines):
        return False
    longest = max(processor.reader.length(line) if isinstance(line, str) else len(line) for line in lines)
    return longest - width < processor.seq_len - longest


def _is_flat(line: Any) -> bool:
    return isinstance(line, list) and bool(line) and all(_is_cell(cell) for cell in line)
