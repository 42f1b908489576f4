"""Files of puzzles: tables, one puzzle a line, or a puzzle in rows; of ARC, tasks as JSON. What is no puzzle is told.

A file of Sudokus, mazes or text grids is any that data sets are read from (see puzzle_tables_trm); a text holds one
puzzle a line, or a puzzle as `height` lines of `width` characters; empty lines separate. A file of ARC holds one task
({"train": [...], "test": [...]}), tasks by their ids (Kaggle's challenges), of which each test input is a puzzle, or
one grid a line ("012/340").
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from .arc_task_trm import ArcTask, arc_task, tasks_of
from .grid_text_trm import LayoutError, shown
from .processing_trm import GridProcessor
from .puzzle_input_trm import FILES, Puzzle, read_puzzle
from .puzzle_tables_trm import pa, read_puzzles
from .text_file_trm import decode, parse_json, unpack

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class NoPuzzle:
    """What stands where a puzzle should: where, its text, and what is wrong with it."""

    name: str
    text: str
    error: str


def read_file(
    path: str | Path,
    processor: GridProcessor,
    characters: str | None = None,
    columns: Mapping[str, str] | None = None,
    data: bytes | None = None,
    tell: Callable[[str], object] = logger.warning,
) -> list[Puzzle | NoPuzzle]:
    """All puzzles of a file, in its order.

    Args:
        characters: see `read_puzzle`. columns: {"question": name of its column} where the name does not say it.
        data: what the file holds, where `path` is but the name of it: of stdin.
        tell: is told which column was taken, where that is news.

    Raises:
        OSError: it cannot be read. ValueError: it is no file of puzzles, naming it and the reason.
    """
    if processor.task == "arc" or pa is None:
        return _read_text_file(path, processor, characters, data)
    reader = replace(processor.reader, written=characters)
    found, told, note = read_puzzles(Path(path), reader, columns, data)
    if note is not None:
        tell(note)
    return [checked(text, processor, place, told.written) for place, text in found] or [
        NoPuzzle(str(path), "", "holds no puzzle")
    ]


def _read_text_file(
    path: str | Path, processor: GridProcessor, characters: str | None, data: bytes | None
) -> list[Puzzle | NoPuzzle]:
    try:
        text = decode(unpack(Path(path).read_bytes() if data is None else data))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return read_text(text, processor, str(path), characters)


def read_arguments(
    arguments: Sequence[str],
    processor: GridProcessor,
    stdin: BinaryIO,
    characters: str | None = None,
    columns: Mapping[str, str] | None = None,
    tell: Callable[[str], object] = logger.warning,
) -> list[Puzzle | NoPuzzle]:
    """What a command line means: each argument "-" for stdin, the name of a file, or a puzzle itself.

    Args:
        characters, columns, tell: see `read_file`.
    """
    found: list[Puzzle | NoPuzzle] = []
    for number, argument in enumerate(arguments, start=1):
        if argument == "-":
            found += read_file("stdin", processor, characters, columns, stdin.read(), tell)
        elif os.path.isfile(argument):
            found += read_file(argument, processor, characters, columns, tell=tell)
        else:
            found.append(_typed(argument, processor, f"puzzle {number}", characters))
    return found


def read_text(
    text: str, processor: GridProcessor, source: str, characters: str | None = None
) -> list[Puzzle | NoPuzzle]:
    """All puzzles of the text of a file.

    Args:
        source: what the file is called.
    """
    if not text.strip():
        return [NoPuzzle(source, text, "holds no puzzle")]
    if processor.task != "arc":
        return [
            checked(
                grid, processor, f"{source}, line{f' {first}' if first == last else f's {first} to {last}'}", characters
            )
            for first, last, grid in processor.reader.split(text)
        ]
    if text.lstrip()[0] in "{[":
        return list(_arc_tests(text, processor, source))
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    return [checked(line, processor, f"{source}, line {number}") for number, line in lines if line]


def checked(puzzle: Any, processor: GridProcessor, name: str, characters: str | None = None) -> Puzzle | NoPuzzle:
    """The puzzle under its name, or what is wrong with it."""
    try:
        return replace(read_puzzle(puzzle, processor, characters), name=name)
    except ValueError as error:
        return NoPuzzle(name, str(puzzle), str(error))


def _typed(argument: str, processor: GridProcessor, name: str, characters: str | None) -> Puzzle | NoPuzzle:
    if os.path.isdir(argument):
        return NoPuzzle(argument, argument, "is a folder; give the files in it")
    if os.path.exists(argument):
        return NoPuzzle(argument, argument, "is a pipe or a device; give - and let it be stdin")
    if argument.endswith(FILES):
        return NoPuzzle(argument, argument, "there is no such file")
    try:
        return replace(read_puzzle(argument, processor, characters), name=name)
    except LayoutError as error:
        return NoPuzzle(name, argument, f"{str(error).replace('the grid', shown(argument), 1)}, and is no file either")
    except ValueError as error:
        more = f"; {shown(argument)} is no file either" if processor.task == "arc" else ""
        return NoPuzzle(name, argument, f"{error}{more}")


# --- ARC --------------------------------------------------------------------------------------------------------------


def _arc_tests(text: str, processor: GridProcessor, source: str) -> Iterator[Puzzle | NoPuzzle]:
    """The test inputs of the tasks of a file (see arc_task_trm.tasks_of); or a grid."""
    try:
        content = parse_json(text)
    except ValueError as error:
        yield NoPuzzle(source, text[:100], f"is no JSON, or cut short: {error}")
        return
    if not isinstance(content, dict) and not (isinstance(content, list) and content and isinstance(content[0], dict)):
        yield checked(content, processor, source)
        return
    if not content:
        yield NoPuzzle(source, text, "holds no task")
        return
    try:
        tasks = tasks_of(content, Path(source).stem, source)
    except ValueError as error:
        yield NoPuzzle(source, text[:100], str(error).removeprefix(f"{source}: "))
        return
    for task_id, task in tasks.items():
        try:
            parsed = arc_task(task, task_id, "", source)
        except ValueError as error:
            where = f"{source}: task {task_id}"
            yield NoPuzzle(where, str(task)[:100], str(error).removeprefix(where).lstrip(":, "))
            continue
        if not parsed.test:
            yield NoPuzzle(f"{source}: task {task_id}", "", "is demonstrations alone, of which nothing is asked")
        (height, width), canvas = parsed.extent, processor.grid_shape
        if parsed.test and (height > canvas[0] or width > canvas[1]):
            why = f"its grids need {height} x {width} cells, the checkpoint's canvas has {canvas[0]} x {canvas[1]}"
            yield NoPuzzle(f"{source}: task {task_id}", "", f"{why}; take a checkpoint with a larger one")
            continue
        for number in range(len(parsed.test)):
            yield _arc_test(parsed, number, processor, f"{source}: task {task_id}, test {number + 1}")


def _arc_test(task: ArcTask, number: int, processor: GridProcessor, name: str) -> Puzzle | NoPuzzle:
    found = checked(task.test[number].input, processor, name)
    return replace(found, arc_task=task) if isinstance(found, Puzzle) else found
