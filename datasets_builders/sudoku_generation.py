"""Sudokus of any side, made here: each has one solution, and singles alone find it.

A solved grid is the pattern box * (row % box) + row // box + column, its digits, rows, columns, bands and stacks
shuffled, then mixed by Kempe chains: of two digits, the cells that share units with each other form chains, and to swap
the digits on one chain breaks no rule, but leaves the symmetries of the pattern. Clues are taken away in random order,
many at once and then fewer, as long as naked and hidden singles still lead to the solution: that is the proof that it
is the only one. `rating` is 0, since nobody has to guess.

Shapes: N puzzles, S side, C = S * S cells.
"""

import math
from collections.abc import Iterator

import numpy as np

from datasets_builders.features import PuzzleSet
from datasets_builders.solutions import FIRST_DIGIT_ID, solved_by_singles
from datasets_builders.validation import sudoku_units
from modeling_trm.processing_trm import GridProcessor
from modeling_trm.randomness_trm import random_bits, random_permutations

BLANK_ID = 1
CHAINS = 8  # swapped for each digit of a grid
SOURCE = "gen_singles"


def generate_sudokus(side: int, count: int, seed: int = 0) -> PuzzleSet:
    """Puzzles of side x side cells, a function of their number and the seed; of equal ones the first.

    Raises:
        ValueError: a side that no Sudoku has.
    """
    processor = GridProcessor("sudoku", grid_shape=(side, side))
    units_US = np.stack([positions for _, positions in sudoku_units(side)])
    labels_NC = np.stack([_solved_grid(side, seed, number, units_US) for number in range(count)]) + FIRST_DIGIT_ID
    inputs_NC = _without_clues(labels_NC.astype(np.uint8), seed, units_US)
    sources, ratings = np.full(count, SOURCE), np.zeros(count, dtype=np.int32)
    puzzles = PuzzleSet("sudoku", inputs_NC, labels_NC.astype(np.uint8), sources, ratings, processor)
    return puzzles.select(np.sort(np.unique(inputs_NC, axis=0, return_index=True)[1]))


def _solved_grid(side: int, seed: int, number: int, units_US: np.ndarray) -> np.ndarray:
    """int64 [C] of digits 0..S-1."""
    box = math.isqrt(side)
    orders = [random_permutations(seed, np.array([number]), stream, box)[0] for stream in range(2 * box + 2)]
    rows, columns = (
        np.concatenate([outer * box + inner for outer, inner in zip(orders[at], orders[at + 1 : at + 1 + box])])
        for at in (0, box + 1)
    )
    digits = random_permutations(seed, np.array([number]), 2 * box + 2, side)[0]
    grid_SS = box * (rows[:, None] % box) + rows[:, None] // box + columns
    return _mixed(digits[grid_SS % side].reshape(-1), seed, number, units_US)


def _mixed(cells_C: np.ndarray, seed: int, number: int, units_US: np.ndarray) -> np.ndarray:
    """After swaps of two digits along chains that do not hold all of their cells."""
    side = units_US.shape[1]
    draws = random_bits(seed, np.array([number]), 1000, 3 * CHAINS * side)[0].reshape(-1, 3)
    for one, other, start in (draws % np.array([side, side - 1, side], dtype=np.uint64)).astype(np.int64).tolist():
        other += other >= one
        pair_C = (cells_C == one) | (cells_C == other)
        chain_C = np.zeros_like(pair_C)
        chain_C[np.flatnonzero(cells_C == one)[start]] = True
        while True:
            reached_U = chain_C[units_US].any(axis=1)
            grown_C = np.zeros_like(chain_C)
            grown_C[units_US[reached_U].reshape(-1)] = True
            grown_C &= pair_C
            if (grown_C == chain_C).all():
                break
            chain_C = grown_C
        cells_C = np.where(chain_C, one + other - cells_C, cells_C)
    return cells_C


def _without_clues(labels_NC: np.ndarray, seed: int, units_US: np.ndarray) -> np.ndarray:
    """The grids with as many blanks as singles can fill, each from another order of the cells."""
    inputs_NC, everything = labels_NC.copy(), np.arange(len(labels_NC))
    orders_NC = random_permutations(seed, everything, 2000, labels_NC.shape[1])
    for taken_Nn in _portions(orders_NC):
        tried_NC = inputs_NC.copy()
        np.put_along_axis(tried_NC, taken_Nn, np.uint8(BLANK_ID), axis=1)
        solved_N = solved_by_singles(tried_NC, units_US)
        inputs_NC[solved_N] = tried_NC[solved_N]
    return inputs_NC


def _portions(orders_NC: np.ndarray) -> Iterator[np.ndarray]:
    """The cells in their order: in eighths, then in smaller parts, and in the end one by one."""
    cells = orders_NC.shape[1]
    for size in (cells // 8, cells // 32, 1):
        if size:
            yield from np.array_split(orders_NC, -(-cells // size), axis=1)
