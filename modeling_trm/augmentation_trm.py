"""Augmentations as values: each is drawn as a pure function of (seed, index), has an inverse and a string form.

Sudoku: permutation of the digits, transpose, permutation of bands, of rows in a band, of stacks, of columns in a stack.
Maze: the dihedral group (`Dihedral`, which ARC's augmentations use too). Its answers come from `mazes.trace_paths`,
because a directional tie-break between shortest paths does not survive a rotation.
`SudokuDraws` is the same draw for a whole batch at once; `SudokuAugmentation.draw` takes its values from it.

Shapes: N puzzles, S side of the grid (9), L = S * S positions. Token ids: 0 padding, 1 blank, 2.. the digits.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from .randomness_trm import random_bits, random_permutations

FIRST_DIGIT_ID = 2
NUM_DIHEDRALS = 8
STREAM_DIGITS, STREAM_TRANSPOSE, STREAM_BANDS, STREAM_ROWS, STREAM_STACKS, STREAM_COLUMNS, STREAM_DIHEDRAL = range(1, 8)
CODES = "0123456789abcdefghijklmnop"  # one character a row, column or digit in the string form


@dataclass(frozen=True)
class SudokuAugmentation:
    """grid -> the grid transposed (if asked), its rows and columns taken in the given order, its digits renamed.

    `rows[r]` is the row that becomes row r, `columns` likewise, `digits[d]` the new name (0-based) of digit d.
    """

    transpose: bool
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    digits: tuple[int, ...]

    def __post_init__(self) -> None:
        side = len(self.rows)
        for name, values in (("rows", self.rows), ("columns", self.columns), ("digits", self.digits)):
            if sorted(values) != list(range(side)):
                raise ValueError(f"{name}={values} must be a permutation of 0..{side - 1}")
            if name != "digits" and not _keeps_bands(values):
                raise ValueError(f"{name}={values} takes a band of a {side} x {side} Sudoku apart")

    @classmethod
    def draw(cls, seed: int, index: int, side: int = 9) -> "SudokuAugmentation":
        """The augmentation of row `index` of a stream with that seed."""
        draws = SudokuDraws.draw(seed, np.array([index]), side)
        fields = (draws.rows, draws.columns, draws.digits)
        return cls(bool(draws.transpose[0]), *(tuple(field[0].tolist()) for field in fields))

    def apply(self, ids: np.ndarray) -> np.ndarray:
        """Token ids [..., L] -> token ids [..., L] of the transformed grids; the input is left alone."""
        side = len(self.rows)
        grids = ids.reshape(*ids.shape[:-1], side, side)
        grids = grids.swapaxes(-1, -2) if self.transpose else grids
        grids = grids[..., list(self.rows), :][..., list(self.columns)]
        table = np.concatenate([np.arange(FIRST_DIGIT_ID), np.array(self.digits) + FIRST_DIGIT_ID])
        return table.astype(ids.dtype)[grids].reshape(ids.shape)

    def inverse(self) -> "SudokuAugmentation":
        rows, columns, digits = (_inverse(field) for field in (self.rows, self.columns, self.digits))
        # apply() transposes first; undoing it transposes what apply() has permuted, so rows and columns swap.
        return SudokuAugmentation(self.transpose, *((columns, rows) if self.transpose else (rows, columns)), digits)

    def __str__(self) -> str:
        fields = (self.rows, self.columns, self.digits)
        return "/".join(["sudoku", str(int(self.transpose)), *("".join(CODES[i] for i in field) for field in fields)])

    @classmethod
    def from_string(cls, text: str) -> "SudokuAugmentation":
        parts = text.split("/")
        if len(parts) != 5 or parts[0] != "sudoku" or parts[1] not in ("0", "1") or set(text[7:]) - set(CODES + "/"):
            raise ValueError(f"{text!r} is no Sudoku augmentation; the form is sudoku/TRANSPOSE/ROWS/COLUMNS/DIGITS")
        return cls(parts[1] == "1", *(tuple(CODES.index(c) for c in part) for part in parts[2:]))


class SudokuDraws(NamedTuple):
    """N augmentations as arrays; field by field what SudokuAugmentation holds."""

    transpose: np.ndarray  # bool [N]
    rows: np.ndarray  # int64 [N, S], as are columns and digits
    columns: np.ndarray
    digits: np.ndarray

    @classmethod
    def draw(cls, seed: int, indices_N: np.ndarray, side: int = 9) -> "SudokuDraws":
        transpose_N = (random_bits(seed, indices_N, STREAM_TRANSPOSE, 1)[:, 0] >> np.uint64(63)).astype(bool)
        rows_NS = _draw_lines(seed, indices_N, STREAM_BANDS, STREAM_ROWS, side)
        columns_NS = _draw_lines(seed, indices_N, STREAM_STACKS, STREAM_COLUMNS, side)
        return cls(transpose_N, rows_NS, columns_NS, random_permutations(seed, indices_N, STREAM_DIGITS, side))

    def apply(self, ids_NL: np.ndarray) -> np.ndarray:
        """uint8 [N, L] -> uint8 [N, L]: augmentation i applied to row i."""
        num, side = self.rows.shape
        # Cell (r, c) comes from (rows[r], columns[c]) of the grid, or of its transpose.
        row_step_N = np.where(self.transpose, 1, side)
        column_step_N = np.where(self.transpose, side, 1)
        row_origin_NS = self.rows * row_step_N[:, None]
        column_origin_NS = self.columns * column_step_N[:, None]
        origin_NSS = row_origin_NS[:, :, None] + column_origin_NS[:, None, :]
        table_NV = np.empty((num, side + FIRST_DIGIT_ID), dtype=ids_NL.dtype)
        table_NV[:, :FIRST_DIGIT_ID] = np.arange(FIRST_DIGIT_ID)
        table_NV[:, FIRST_DIGIT_ID:] = self.digits + FIRST_DIGIT_ID
        moved_NL = np.take_along_axis(ids_NL, origin_NSS.reshape(num, side * side), axis=1)
        return np.take_along_axis(table_NV, moved_NL.astype(np.intp), axis=1)


@dataclass(frozen=True)
class Dihedral:
    """One of the eight dihedral maps: transposed first (if asked), then flipped top to bottom, left to right."""

    transpose: bool
    flip_rows: bool
    flip_columns: bool

    @property
    def number(self) -> int:
        """0..7; 0 is the identity."""
        return 4 * self.transpose + 2 * self.flip_rows + self.flip_columns

    @classmethod
    def from_number(cls, number: int) -> Self:
        if number not in range(NUM_DIHEDRALS):
            raise ValueError(f"dihedral map {number!r} must be one of 0..{NUM_DIHEDRALS - 1}")
        return cls(bool(number & 4), bool(number & 2), bool(number & 1))

    def apply(self, grid: np.ndarray) -> np.ndarray:
        """[..., height, width] -> the transformed grids, as a view of the same memory."""
        grid = grid.swapaxes(-1, -2) if self.transpose else grid
        grid = np.flip(grid, axis=-2) if self.flip_rows else grid
        return np.flip(grid, axis=-1) if self.flip_columns else grid

    def inverse(self) -> Self:
        flips = (self.flip_rows, self.flip_columns)
        return type(self)(self.transpose, *(flips[::-1] if self.transpose else flips))


class MazeAugmentation(Dihedral):
    """The dihedral map of a maze, on token ids. Answers of transformed mazes are to be derived anew."""

    @classmethod
    def draw(cls, seed: int, index: int, square: bool = True) -> Self:
        """The augmentation of row `index`; a maze that is not square is not transposed."""
        return cls.from_number(int(draw_dihedral(seed, np.array([index]), square)[0]))

    def __str__(self) -> str:
        return f"maze/{self.transpose:d}{self.flip_rows:d}{self.flip_columns:d}"

    @classmethod
    def from_string(cls, text: str) -> Self:
        head, _, bits = text.partition("/")
        if head != "maze" or len(bits) != 3 or set(bits) - set("01"):
            raise ValueError(f"{text!r} is no maze augmentation; the form is maze/TRC, three bits")
        return cls(*(bit == "1" for bit in bits))


def draw_dihedral(seed: int, indices_N: np.ndarray, square: bool = True) -> np.ndarray:
    """int64 [N]: the number (0..7) of the dihedral map of each row."""
    bits_N = random_bits(seed, indices_N, STREAM_DIHEDRAL, 1)[:, 0]
    return (bits_N >> np.uint64(61 if square else 62)).astype(np.int64)


def _draw_lines(seed: int, indices_N: np.ndarray, stream_bands: int, stream_lines: int, side: int) -> np.ndarray:
    """int64 [N, S]: an order of the rows (or columns) that permutes bands, and lines in a band."""
    box = math.isqrt(side)
    bands_NB = random_permutations(seed, indices_N, stream_bands, box)
    lines_NBB = np.argsort(
        random_bits(seed, indices_N, stream_lines, side).reshape(-1, box, box), axis=2, kind="stable"
    )
    return (bands_NB[:, :, None] * box + lines_NBB).reshape(-1, side)


def _inverse(permutation: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argsort(permutation))


def _keeps_bands(permutation: tuple[int, ...]) -> bool:
    box = math.isqrt(len(permutation))
    bands = np.array(permutation).reshape(box, box) // box
    return bool((bands == bands[:, :1]).all())
