"""Verifiers: whether answers obey the rules of the puzzle. They know what no model was told, so results say so by name.

Each is (input_ids [N, L], answers [N, L]) -> bool [N], on token ids as GridProcessor has them.

Shapes: N puzzles, L = H * W cells, S side of a Sudoku and number of its digits.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

SUDOKU_BLANK, SUDOKU_FIRST_DIGIT = 1, 2
MAZE_WALL, MAZE_OPEN, MAZE_START, MAZE_GOAL, MAZE_PATH = range(1, 6)


def sudoku_is_solved(input_ids: Tensor, answers: Tensor, grid_shape: Sequence[int]) -> Tensor:
    """Every row, column and box holds each digit once, and the clues are kept."""
    side = grid_shape[0]
    box = math.isqrt(side)
    kept_N = ((answers == input_ids) | (input_ids == SUDOKU_BLANK)).all(-1)
    cells_NSS = answers.view(-1, side, side) - SUDOKU_FIRST_DIGIT
    boxes_NSS = cells_NSS.view(-1, box, box, box, box).transpose(2, 3).reshape(-1, side, side)
    units = torch.cat([cells_NSS, cells_NSS.transpose(1, 2), boxes_NSS], dim=1)
    expected = torch.arange(side, device=answers.device)
    return kept_N & (units.sort(-1).values == expected).flatten(1).all(1)


def maze_path_connects(input_ids: Tensor, answers: Tensor, grid_shape: Sequence[int]) -> Tensor:
    """Nothing but open cells became path, and the path is one line from start to goal without branch or loop.

    Whether it is a shortest one is not asked: that would give the answer away.
    """
    is_path = answers == MAZE_PATH
    unchanged_N = ((answers == input_ids) | (is_path & (input_ids == MAZE_OPEN))).all(-1)
    start, goal = (input_ids == end for end in (MAZE_START, MAZE_GOAL))
    line_NHW = (is_path | start | goal).view(-1, *grid_shape)
    padded = F.pad(line_NHW.long(), (1, 1, 1, 1))
    neighbours = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    ends_NHW = (start | goal).view(-1, *grid_shape)
    degrees_fit = torch.where(ends_NHW, neighbours == 1, neighbours == 2) | ~line_NHW
    return unchanged_N & degrees_fit.flatten(1).all(1) & _is_one_piece(line_NHW, start.view(-1, *grid_shape))


def _is_one_piece(line_NHW: Tensor, start_NHW: Tensor) -> Tensor:
    """Whether all of the line is reached from the start: without it, loops beside the path have fitting degrees."""
    reached = start_NHW
    while True:
        padded = F.pad(reached, (1, 1, 1, 1))
        sides = padded[:, :-2, 1:-1] | padded[:, 2:, 1:-1] | padded[:, 1:-1, :-2] | padded[:, 1:-1, 2:]
        grown = (reached | sides) & line_NHW
        if torch.equal(grown, reached):
            return (reached == line_NHW).flatten(1).all(1)
        reached = grown


RULES: dict[str, Callable[..., Tensor]] = {"sudoku": sudoku_is_solved, "maze": maze_path_connects}


def verifier_for(task: str, grid_shape: Sequence[int]) -> Callable[[Tensor, Tensor], Tensor]:
    """The verifier of a task's grids. Raises ValueError for a task without known rules."""
    if task not in RULES:
        raise ValueError(f"task={task!r} has no known rules to verify answers by; allowed: {', '.join(RULES)}")
    return partial(RULES[task], grid_shape=grid_shape)
