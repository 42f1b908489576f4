"""Which solution grids could be the same up to a symmetry of Sudoku: an invariant, for splits without leaks.

Two columns of a solution, read side by side, are a permutation of the digits; renaming digits or permuting rows keeps
its cycle type. The multisets of cycle types over pairs of columns (in one stack, across stacks) and over pairs of rows
therefore do not change under any symmetry. Isomorphic grids always have the same invariant; grids that are not
isomorphic nearly always differ, so that keeping invariants apart keeps families apart, at the price of few puzzles.

Shapes: N grids, S side, P pairs of lines.
"""

import itertools
import math

import numpy as np

from modeling_trm.randomness_trm import mix


def solution_families(labels_NL: np.ndarray, side: int = 9) -> np.ndarray:
    """uint64 [N]: a hash of the invariant of each solved grid (token ids, 2.. the digits)."""
    box = math.isqrt(side)
    grids = labels_NL.reshape(-1, side, side).astype(np.int64) - 2
    lines = [_pair_hashes(grids.swapaxes(1, 2), box), _pair_hashes(grids, box)]
    return mix(lines[0]) + mix(lines[1])  # a sum: transposing swaps the two


def maze_families(mazes_NHW: np.ndarray) -> list[bytes]:
    """The least of the images of each (square or oblong) maze under flips and transposition."""
    images = [mazes_NHW, mazes_NHW.swapaxes(1, 2)]
    images = [np.flip(image, axes) for image in images for axes in ((), (1,), (2,), (1, 2))]
    return [min(image[n].tobytes() for image in images) for n in range(len(mazes_NHW))]


def _pair_hashes(lines_NSS: np.ndarray, box: int) -> np.ndarray:
    """uint64 [N]: one hash of the cycle types over all pairs of lines (axis 1), pairs in a band apart from the rest."""
    side = lines_NSS.shape[1]
    pairs = list(itertools.combinations(range(side), 2))
    total = np.zeros(len(lines_NSS), dtype=np.uint64)
    position = np.argsort(lines_NSS, axis=2)  # position[n, i, d]: where line i has digit d
    for first, second in pairs:
        permutation = np.take_along_axis(lines_NSS[:, second], position[:, first], axis=1)
        in_one_band = first // box == second // box
        # Summing mixed hashes makes the result independent of the order of the pairs.
        total += mix(_cycle_type(permutation) * np.uint64(2) + np.uint64(in_one_band))
    return total


def _cycle_type(permutations_NS: np.ndarray) -> np.ndarray:
    """uint64 [N]: the numbers of fixed points of p, p^2, ..., p^S, which determine the cycle type."""
    side = permutations_NS.shape[1]
    power = permutations_NS
    code = np.zeros(len(permutations_NS), dtype=np.uint64)
    for _ in range(side):
        fixed = (power == np.arange(side)).sum(axis=1).astype(np.uint64)
        code = code * np.uint64(side + 1) + fixed
        power = np.take_along_axis(permutations_NS, power, axis=1)
    return code
