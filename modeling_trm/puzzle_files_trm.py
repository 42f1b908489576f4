"""Files of puzzles: one puzzle a line, or a puzzle in rows; of ARC, tasks as JSON. What is none is told with its place.

A file of Sudokus, mazes or text grids holds one puzzle a line, or a puzzle as `height` lines of `width` characters;
empty lines separate. A file of ARC holds one task ({"train": [...], "test": [...]}), tasks by their ids (Kaggle's
challenges), of which each test input is a puzzle, or one grid a line ("012/340").
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from .arc_task_trm import ArcTask, arc_task
from .processing_trm import GridProcessor, clean_text
from .puzzle_input_trm import Puzzle, puzzle_of_cells, read_puzzle


@dataclass(frozen=True)
class NoPuzzle:
    """What stands where a puzzle should: where, its text, and what is wrong with it."""

    name: str
    text: str
    error: str


def read_arguments(arguments: Sequence[str], processor: GridProcessor, stdin: TextIO) -> list[Puzzle | NoPuzzle]:
    """What a command line means: each argument "-" for stdin, the name of a file, or a puzzle itself."""
    found: list[Puzzle | NoPuzzle] = []
    for number, argument in enumerate(arguments, start=1):
        if argument == "-":
            found += read_text(stdin.read(), processor, "stdin")
        elif os.path.isfile(argument):
            found += read_file(argument, processor)
        else:
            found.append(_typed(argument, processor, f"puzzle {number}"))
    return found


def read_file(path: str | Path, processor: GridProcessor) -> list[Puzzle | NoPuzzle]:
    """All puzzles of a file, in its order. Raises OSError; ValueError for a file that is no text."""
    try:
        return read_text(Path(path).read_text(encoding="utf-8"), processor, str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no UTF-8 text: {error.reason} at byte {error.start}") from error


def read_text(text: str, processor: GridProcessor, source: str) -> list[Puzzle | NoPuzzle]:
    """All puzzles of the text of a file.

    Args:
        source: what the file is called.
    """
    if not text.strip():
        return [NoPuzzle(source, text, "holds no puzzle")]
    if processor.task != "arc":
        return list(_split(text, processor, source))
    if text.lstrip()[0] in "{[":
        return list(_arc_tests(text, processor, source))
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    return [_checked(line, processor, f"{source}, line {number}") for number, line in lines if line]


def _checked(puzzle: Any, processor: GridProcessor, name: str) -> Puzzle | NoPuzzle:
    try:
        return replace(read_puzzle(puzzle, processor), name=name)
    except ValueError as error:
        return NoPuzzle(name, str(puzzle), str(error))


def _of_cells(cells: str, processor: GridProcessor, name: str) -> Puzzle | NoPuzzle:
    try:
        return puzzle_of_cells(cells, processor, name)
    except ValueError as error:
        return NoPuzzle(name, cells, str(error))


def _typed(argument: str, processor: GridProcessor, name: str) -> Puzzle | NoPuzzle:
    shown = argument if len(argument) <= 100 else f"{argument[:97]}..."
    if processor.task == "arc":
        found = _checked(argument, processor, name)
        return (
            found if isinstance(found, Puzzle) else replace(found, error=f"{found.error}; {shown!r} is no file either")
        )
    cells = clean_text(argument, processor.task)
    if len(cells) == processor.seq_len:
        return _of_cells(cells, processor, name)
    height, width = processor.grid_shape
    expected = f"{len(cells)} cells, expected {processor.seq_len} ({height} x {width})"
    return NoPuzzle(name, argument, f"{shown!r} has {expected}, and is no file either")


# --- grids of characters ----------------------------------------------------------------------------------------------


def _split(text: str, processor: GridProcessor, source: str) -> Iterator[Puzzle | NoPuzzle]:
    """Blocks of lines between empty ones, each block one puzzle a line or one puzzle in rows."""
    block: list[tuple[int, str]] = []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        # A Sudoku may come as rendered, with spaces and box lines; in a maze every space is a cell.
        cells = clean_text(line, processor.task)
        if cells:
            block.append((number, cells))
        elif block and not line.strip():
            yield from _split_block(block, processor, source)
            block = []


def _split_block(block: list[tuple[int, str]], processor: GridProcessor, source: str) -> Iterator[Puzzle | NoPuzzle]:
    height, width = processor.grid_shape
    lengths = {len(cells) for _, cells in block}
    if width not in lengths or processor.seq_len in lengths:
        yield from (_of_cells(cells, processor, f"{source}, line {number}") for number, cells in block)
        return
    for start in range(0, len(block), height):
        rows = block[start : start + height]
        name = f"{source}, lines {rows[0][0]} to {rows[-1][0]}"
        ragged = [f"line {number} has {len(cells)} characters" for number, cells in rows if len(cells) != width]
        if ragged:
            yield NoPuzzle(name, "\n".join(cells for _, cells in rows), f"{ragged[0]}, expected {width}")
        else:
            yield _of_cells("".join(cells for _, cells in rows), processor, name)


# --- ARC --------------------------------------------------------------------------------------------------------------


def _arc_tests(text: str, processor: GridProcessor, source: str) -> Iterator[Puzzle | NoPuzzle]:
    """The test inputs of one task, which has the file's name, or of tasks by their ids; or a grid."""
    try:
        content = json.loads(text)
    except ValueError as error:
        yield NoPuzzle(source, text[:100], f"is no JSON, or cut short: {error}")
        return
    if not isinstance(content, dict):
        yield _checked(content, processor, source)
        return
    is_task = "train" in content and "test" in content
    tasks = {Path(source).stem: content} if is_task else content
    for task_id, task in tasks.items():
        try:
            parsed = arc_task(task, task_id, "", source)
        except ValueError as error:
            yield NoPuzzle(f"{source}: task {task_id}", str(task)[:100], str(error).removeprefix(f"{source}: "))
            continue
        for number in range(len(parsed.test)):
            yield _arc_test(parsed, number, processor, f"{source}: task {task_id}, test {number + 1}")


def _arc_test(task: ArcTask, number: int, processor: GridProcessor, name: str) -> Puzzle | NoPuzzle:
    found = _checked(task.test[number].input, processor, name)
    return replace(found, arc_task=task) if isinstance(found, Puzzle) else found
