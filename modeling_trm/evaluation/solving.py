"""Solve puzzles given as text: read them, run the model, keep what it answered after each step.

Used by `trm solve`. Whether an answer obeys the rules is left to the caller, who knows the rules.

Shapes: B views of a batch, K trajectories of each, L cells.
"""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TextIO

import numpy as np
import torch

from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor, clean_text
from ..reasoning_trm import SolveOutput
from ..voting_trm import Candidate, View, rank_votes, text_views

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
class Choice:
    """Among what an answer was chosen.

    Attributes:
        views: relabelled views of the puzzle, itself included; where there are several, their answers vote.
        trajectories: of each view. selection: how one of them was taken; None for a single one.
        votes: the distinct answers of the views, or of the trajectories of a single view, best first.
    """

    views: int
    trajectories: int
    selection: str | None
    votes: list[Candidate]


@dataclass(frozen=True)
class Solution:
    """The model's answer to one puzzle. Probabilities are None where the model has diverged (NaN).

    Where views vote, halt_probability is the mean of those that gave the answer; steps and trace are of the puzzle as
    it is. choice: None where there was nothing to choose.
    """

    puzzle: str
    answer: str
    halt_probability: float | None
    steps: int
    trace: list[Frame]
    choice: Choice | None = None


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
    halt: bool | float = True,
    trace: bool = False,
    views: int = 1,
    seed: int = 0,
    batch_size: int = 64,
    search: Mapping[str, Any] | None = None,
    engine: str = "auto",
) -> list[Solution]:
    """Solve grids that the processor accepts.

    Args:
        max_steps, halt, engine: see `model.solve`. search: its arguments from num_trajectories on; plain without.
        views: how many relabelled views of each grid vote, itself included; see `voting_trm.text_views`. seed: theirs.
        batch_size: views that run together, each with all of its trajectories.

    Raises:
        ValueError: several views of a task without known augmentations, or a search that `model.solve` does not take.
    """
    options = {"max_steps": max_steps, "halt": halt, "return_trace": trace, "engine": engine, **(search or {})}
    encoded = [processor.encode(grid).numpy() for grid in grids]
    work = ((number, view) for number, ids in enumerate(encoded) for view in text_views(processor, ids, views, seed))
    answered: list[list[tuple[Solution, str]]] = [[] for _ in grids]
    for batch in iter(lambda: list(islice(work, batch_size)), []):
        input_ids_BL = torch.from_numpy(np.stack([view.input_ids for _, view in batch])).to(model.device)
        solved = model.solve(input_ids_BL, **options)
        frames = _frames(processor, solved, [_text(processor, ids_L) for ids_L in input_ids_BL.cpu()])
        outcomes = zip(solved.answers.cpu().numpy(), solved.halt_probability.tolist(), solved.steps.tolist(), frames)
        for row, ((number, view), (answer_L, probability, steps, frames_of_one)) in enumerate(zip(batch, outcomes)):
            puzzle, answer = _text(processor, encoded[number]), _text(processor, answer_L)
            choice = _choice_of_trajectories(solved, row, view, options.get("selection", "halt"))
            solution = Solution(puzzle, answer, _finite(probability), steps, frames_of_one, choice)
            answered[number].append((solution, view.undo(answer_L)))
    return [_vote(of_grid) for of_grid in answered]


def _frames(processor: GridProcessor, solved: SolveOutput, inputs: Sequence[str]) -> list[list[Frame]]:
    """The trace of each view of a batch; nothing where none was asked for."""
    frames: list[list[Frame]] = [[] for _ in inputs]
    for step, taken in enumerate(solved.trace or [], start=1):
        outcomes = zip(taken.rows.tolist(), taken.answers.cpu(), taken.halt_probability.tolist())
        for row, answer_L, probability in outcomes:
            before = frames[row][-1].answer if frames[row] else inputs[row]
            frames[row].append(_frame(step, before, _text(processor, answer_L), probability))
    return frames


def _choice_of_trajectories(solved: SolveOutput, row: int, view: View, selection: str) -> Choice | None:
    """Among what the answer to one view of a batch was taken; None for a single trajectory."""
    if solved.trajectories is None:
        return None
    answers_KL = solved.trajectories.answers[row].cpu().numpy()
    probabilities = solved.trajectories.halt_logits[row].float().sigmoid().tolist()
    votes = rank_votes([view.undo(answer_L) for answer_L in answers_KL], probabilities)
    return Choice(1, len(answers_KL), selection, votes)


def _vote(answered: Sequence[tuple[Solution, str]]) -> Solution:
    """The solution of a puzzle from those of its views, each with its answer in the puzzle's frame, itself first."""
    own = answered[0][0]
    if len(answered) == 1:
        return own
    probabilities = [math.nan if one.halt_probability is None else one.halt_probability for one, _ in answered]
    ranked = rank_votes([answer for _, answer in answered], probabilities)
    of_each = own.choice or Choice(1, 1, None, [])
    choice = replace(of_each, views=len(answered), votes=ranked)
    if not ranked:  # no view answered a grid
        return replace(own, choice=choice)
    return replace(own, answer=ranked[0].answer, halt_probability=ranked[0].halt_probability, choice=choice)


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


def _text(processor: GridProcessor, ids_L: torch.Tensor | np.ndarray) -> str:
    """The characters of the cells; unlike processor.decode, also of an answer that is no grid."""
    characters = UNKNOWN_CELL + processor.characters
    return "".join(characters[token] if token < len(characters) else UNKNOWN_CELL for token in ids_L.tolist())


def _frame(step: int, before: str, answer: str, probability: float) -> Frame:
    changed = [position for position, (old, new) in enumerate(zip(before, answer)) if old != new]
    return Frame(step, answer, changed, _finite(probability))


def _finite(probability: float) -> float | None:
    return probability if math.isfinite(probability) else None
