"""Mazes of any shape, made here as those of 30 x 30 cells are: walls at random, start and goal far apart.

30 to 50 % of the cells are walls, none around them all. The goal is drawn among the open cells, the start among those
that are more than so many moves away; a maze without any is left out. `rating` is the number of moves.

Shapes: N mazes, C = height * width cells.
"""

import numpy as np

from datasets_builders.features import PuzzleSet
from datasets_builders.mazes import GOAL, OPEN, START, WALL, distances_to_goal, trace_paths
from modeling_trm.processing_trm import GridProcessor
from modeling_trm.randomness_trm import random_floats

LEAST_WALLS, MOST_WALLS = 0.3, 0.5
AT_ONCE = 4096
MOST_DRAWN = 1000  # times the mazes that are asked for


def generate_mazes(grid_shape: tuple[int, int], count: int, more_than: int, seed: int = 0) -> PuzzleSet:
    """Mazes whose shortest path has more than so many moves, a function of all arguments; of equal ones the first.

    Raises:
        ValueError: hardly any maze of that shape has so long a path.
    """
    processor = GridProcessor("maze", grid_shape=grid_shape)
    inputs_NC, labels_NC, moves_N = (np.empty((0, *shape), np.int64) for shape in ((processor.seq_len,),) * 2 + ((),))
    for first in range(0, MOST_DRAWN * count, AT_ONCE):
        found = _drawn(grid_shape, np.arange(first, first + AT_ONCE), more_than, seed)
        inputs_NC, labels_NC, moves_N = map(np.concatenate, zip((inputs_NC, labels_NC, moves_N), found))
        distinct = np.sort(np.unique(inputs_NC, axis=0, return_index=True)[1])[:count]
        inputs_NC, labels_NC, moves_N = inputs_NC[distinct], labels_NC[distinct], moves_N[distinct]
        if len(distinct) == count:
            break
    else:
        raise ValueError(
            f"more_than={more_than}: of {MOST_DRAWN * count} mazes of {grid_shape} cells {len(inputs_NC)} have so long "
            f"a path, {count} were asked for; allowed: shorter paths, or a larger grid"
        )
    name = "gen_maze_{}x{}".format(*grid_shape)
    inputs, labels = inputs_NC.astype(np.uint8), labels_NC.astype(np.uint8)
    return PuzzleSet("maze", inputs, labels, np.full(count, name), moves_N.astype(np.int32), processor)


def _drawn(
    grid_shape: tuple[int, int], numbers_N: np.ndarray, more_than: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Questions, answers and moves of those of the numbered mazes whose path is long enough."""
    cells = grid_shape[0] * grid_shape[1]
    share_N1 = LEAST_WALLS + (MOST_WALLS - LEAST_WALLS) * random_floats(seed, numbers_N, 0, 1)
    mazes_NC = np.where(random_floats(seed, numbers_N, 1, cells) < share_N1, WALL, OPEN).astype(np.uint8)
    mazes_NC = _with_one(GOAL, mazes_NC, mazes_NC == OPEN, random_floats(seed, numbers_N, 2, cells))
    distances_NC = distances_to_goal(mazes_NC.reshape(-1, *grid_shape)).reshape(-1, cells)
    far_NC = distances_NC > more_than
    mazes_NC = _with_one(START, mazes_NC, far_NC, random_floats(seed, numbers_N, 3, cells))
    moves_N = np.where(mazes_NC == START, distances_NC, 0).max(axis=1)
    long_N = far_NC.any(axis=1)
    mazes, distances = (of[long_N].reshape(-1, *grid_shape) for of in (mazes_NC, distances_NC))
    return mazes_NC[long_N], trace_paths(mazes, distances).reshape(-1, cells), moves_N[long_N]


def _with_one(token: int, mazes_NC: np.ndarray, allowed_NC: np.ndarray, draws_NC: np.ndarray) -> np.ndarray:
    """The mazes with this token at one of the allowed cells, if there is any."""
    chosen_N = np.where(allowed_NC, draws_NC, -1).argmax(axis=1)
    mazes_NC, everything = mazes_NC.copy(), np.arange(len(mazes_NC))
    mazes_NC[everything, chosen_N] = np.where(allowed_NC.any(axis=1), token, mazes_NC[everything, chosen_N])
    return mazes_NC
