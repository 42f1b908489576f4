"""Files of puzzles: one puzzle a line, or a puzzle in rows; of ARC, tasks as JSON. What is none is told with its place.

A file of Sudokus, mazes or text grids holds one puzzle a line, or a puzzle as `height` lines of `width` characters;
empty lines separate. A file of ARC holds one task ({"train": [...], "test": [...]}), tasks by their ids (Kaggle's
challenges), of which each test input is a puzzle, or one grid a line ("012/340").
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from .arc_task_trm import ArcTask, arc_task
from .grid_text_trm import LayoutError, shown
from .processing_trm import GridProcessor
from .puzzle_input_trm import Puzzle, read_puzzle
from .text_file_trm import decode, parse_json, unpack


@dataclass(frozen=True)
class NoPuzzle:
    """What stands where a puzzle should: where, its text, and what is wrong with it."""

    name: str
    text: str
    error: str


def read_text_file(
    path: str | Path, processor: GridProcessor, characters: str | None = None
) -> list[Puzzle | NoPuzzle]:
    """All puzzles of a file of text, in its order. Raises OSError; ValueError for a file that is no text."""
    try:
        text = decode(unpack(Path(path).read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return read_text(text, processor, str(path), characters)


def read_arguments(
    arguments: Sequence[str],
    processor: GridProcessor,
    stdin: TextIO,
    characters: str | None = None,
    read_file: Callable[[str, GridProcessor, str | None], list[Puzzle | NoPuzzle]] = read_text_file,
) -> list[Puzzle | NoPuzzle]:
    """What a command line means: each argument "-" for stdin, the name of a file, or a puzzle itself.

    Args:
        characters: see `read_puzzle`. read_file: reads a file of puzzles.
    """
    found: list[Puzzle | NoPuzzle] = []
    for number, argument in enumerate(arguments, start=1):
        if argument == "-":
            found += read_text(_read_stdin(stdin), processor, "stdin", characters)
        elif os.path.isfile(argument):
            found += read_file(argument, processor, characters)
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
    try:
        return replace(read_puzzle(argument, processor, characters), name=name)
    except LayoutError as error:
        return NoPuzzle(name, argument, f"{str(error).replace('the grid', shown(argument), 1)}, and is no file either")
    except ValueError as error:
        more = f"; {shown(argument)} is no file either" if processor.task == "arc" else ""
        return NoPuzzle(name, argument, f"{error}{more}")


def _read_stdin(stdin: TextIO) -> str:
    try:
        return stdin.read()
    except UnicodeDecodeError as error:
        raise ValueError(f"stdin: is no UTF-8 text: {error.reason} at byte {error.start}") from error


# --- ARC --------------------------------------------------------------------------------------------------------------


def _arc_tests(text: str, processor: GridProcessor, source: str) -> Iterator[Puzzle | NoPuzzle]:
    """The test inputs of one task, which has the file's name, or of tasks by their ids; or a grid."""
    try:
        content = parse_json(text)
    except ValueError as error:
        yield NoPuzzle(source, text[:100], f"is no JSON, or cut short: {error}")
        return
    if not isinstance(content, dict):
        yield checked(content, processor, source)
        return
    if not content:
        yield NoPuzzle(source, text, "holds no task")
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
    found = checked(task.test[number].input, processor, name)
    return replace(found, arc_task=task) if isinstance(found, Puzzle) else found
