"""Solve puzzles given as text: read them, run the model, keep what it answered after each step.

Used by scripts/solve.py. Whether an answer obeys the rules is left to the caller, who knows the rules.
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

import torch

from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor, clean_text

UNKNOWN_CELL = "?"  # shown where the model answers padding


@dataclass(frozen=True)
class PuzzleText:
    """A puzzle as it was given, where it was given, and what is wrong with its layout (None: nothing)."""

    name: str
    text: str
    error: str | None = None


@dataclass(frozen=True)
class Frame:
    """The answer after one supervision step, and the positions that differ from the step before (first: the puzzle)."""

    step: int
    answer: str
    changed: list[int]
    halt_probability: float | None


@dataclass(frozen=True)
class Solution:
    """The model's answer to one puzzle. Probabilities are None where the model has diverged (NaN)."""

    puzzle: str
    answer: str
    halt_probability: float | None
    steps: int
    trace: list[Frame]


def read_puzzles(arguments: Sequence[str], processor: GridProcessor, stdin: TextIO) -> list[PuzzleText]:
    """The puzzles meant by the arguments: each one "-" for stdin, the name of a file, or a puzzle itself.

    Files and stdin hold one puzzle a line, or a puzzle as `height` lines of `width` characters; empty lines separate.
    """
    puzzles: list[PuzzleText] = []
    for number, argument in enumerate(arguments, start=1):
        if argument == "-":
            puzzles += _split(stdin.read(), processor, "stdin")
        elif os.path.isfile(argument):
            with open(argument, encoding="utf-8") as file:
                puzzles += _split(file.read(), processor, argument)
        else:
            puzzles.append(_as_typed(argument, processor, f"puzzle {number}"))
    return puzzles


def solve_grids(
    model: TRMForGridReasoning,
    processor: GridProcessor,
    grids: Sequence[str],
    *,
    max_steps: int | None = None,
    halt: bool = True,
    trace: bool = False,
    batch_size: int = 64,
) -> list[Solution]:
    """Solve grids that the processor accepts. See `model.solve` for max_steps and halt."""
    solutions: list[Solution] = []
    for start in range(0, len(grids), batch_size):
        batch = list(grids[start : start + batch_size])
        input_ids_BL = processor(batch).input_ids.to(model.device)
        solved = model.solve(input_ids_BL, max_steps=max_steps, halt=halt, return_trace=trace)
        puzzles = [_text(processor, ids_L) for ids_L in input_ids_BL.cpu()]
        frames: list[list[Frame]] = [[] for _ in batch]
        for step, taken in enumerate(solved.trace or [], start=1):
            for row, answer_L, probability in zip(
                taken.rows.tolist(), taken.answers.cpu(), taken.halt_probability.tolist()
            ):
                before = frames[row][-1].answer if frames[row] else puzzles[row]
                frames[row].append(_frame(step, before, _text(processor, answer_L), probability))
        outcomes = zip(puzzles, solved.answers.cpu(), solved.halt_probability.tolist(), solved.steps.tolist(), frames)
        solutions += [
            Solution(puzzle, _text(processor, answer_L), _finite(probability), steps, frames_of_one)
            for puzzle, answer_L, probability, steps, frames_of_one in outcomes
        ]
    return solutions


def _split(text: str, processor: GridProcessor, source: str) -> Iterator[PuzzleText]:
    """The puzzles of a file: blocks of lines between empty ones, each block one puzzle a line or one puzzle in rows."""
    if not text.strip():
        yield PuzzleText(source, text, "holds no puzzle")
    block: list[tuple[int, str]] = []
    for number, line in enumerate([*text.splitlines(), ""], start=1):
        # A Sudoku may come as rendered, with spaces and box lines; in a maze every space is a cell.
        cells = clean_text(line, processor.task)
        if cells:
            block.append((number, cells))
        elif block and not line.strip():
            yield from _split_block(block, processor, source)
            block = []


def _split_block(block: list[tuple[int, str]], processor: GridProcessor, source: str) -> Iterator[PuzzleText]:
    height, width = processor.grid_shape
    lengths = {len(cells) for _, cells in block}
    if width not in lengths or processor.seq_len in lengths:
        yield from (PuzzleText(f"{source}, line {number}", cells) for number, cells in block)
        return
    for start in range(0, len(block), height):
        rows = block[start : start + height]
        ragged = [f"line {number} has {len(cells)} characters" for number, cells in rows if len(cells) != width]
        error = f"{ragged[0]}, expected {width}" if ragged else None
        name = f"{source}, lines {rows[0][0]} to {rows[-1][0]}"
        yield PuzzleText(name, "\n".join(cells for _, cells in rows), error)


def _as_typed(argument: str, processor: GridProcessor, name: str) -> PuzzleText:
    cells = clean_text(argument, processor.task)
    if len(cells) == processor.seq_len:
        return PuzzleText(name, argument)
    height, width = processor.grid_shape
    shown = argument if len(argument) <= 100 else f"{argument[:97]}..."
    return PuzzleText(
        name,
        argument,
        f"{shown!r} has {len(cells)} cells, expected {processor.seq_len} ({height} x {width}), and is no file either",
    )


def _text(processor: GridProcessor, ids_L: torch.Tensor) -> str:
    """The characters of the cells; unlike processor.decode, also of an answer that is no grid."""
    characters = UNKNOWN_CELL + processor.characters
    return "".join(characters[token] if token < len(characters) else UNKNOWN_CELL for token in ids_L.tolist())


def _frame(step: int, before: str, answer: str, probability: float) -> Frame:
    changed = [position for position, (old, new) in enumerate(zip(before, answer)) if old != new]
    return Frame(step, answer, changed, _finite(probability))


def _finite(probability: float) -> float | None:
    return probability if math.isfinite(probability) else None
