"""Voting at inference: one puzzle under several augmentations, and the ranking of the answers that come back.

Source: TRM (arXiv 2510.04871), public evaluator for ARC: every augmentation of a task that the puzzle table has a row
for is run with that row, cropped, undone, and votes. Sudoku and mazes vote under relabellings of their own.

Shapes: V views, L = height * width positions, h x w the cells of an arc grid. Bytes of an arc augmentation: the
dihedral number, then the colour that each of the colours 0..9 becomes (see puzzle_index_trm).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np

from .augmentation_trm import NUM_DIHEDRALS, Dihedral, SudokuAugmentation, draw_dihedral
from .processing_trm import NUM_COLOURS, GridProcessor, colours_to_text, crop_colours
from .puzzle_index_trm import AUGMENTATION_BYTES, BLANK_ROW, IDENTITY, PuzzleIndex
from .randomness_trm import random_permutations

IdsMap = Callable[[np.ndarray], np.ndarray]  # token ids [L] -> token ids [L]
STREAM_VOTE_COLOURS = 31
TRIALS_A_VIEW = 5  # an arc grid of few colours has fewer distinct images than may be asked for


class View(NamedTuple):
    """A puzzle under one augmentation, the row of the puzzle table to run it with, and the way back."""

    input_ids: np.ndarray  # int64 [L]
    puzzle_row: int
    undo: Callable[[np.ndarray], str]  # answer ids [L] -> its text in the puzzle's own frame, "" for no grid


class Candidate(NamedTuple):
    """One distinct answer among the votes for a puzzle."""

    answer: str
    votes: int
    halt_probability: float  # mean of its votes


def rank_votes(answers: Sequence[str], halt_probability: Sequence[float]) -> list[Candidate]:
    """The distinct answers but "", best first: votes and then mean halt probability descending, then text ascending.

    The order is total and does not depend on that of the votes. A probability that is not finite counts as 0.
    """
    votes_of: dict[str, list[float]] = {}
    for answer, probability in zip(answers, halt_probability, strict=True):
        if answer:
            votes_of.setdefault(answer, []).append(probability if math.isfinite(probability) else 0.0)
    candidates = [Candidate(answer, len(votes), math.fsum(votes) / len(votes)) for answer, votes in votes_of.items()]
    return sorted(candidates, key=lambda candidate: (-candidate.votes, -candidate.halt_probability, candidate.answer))


def text_views(processor: GridProcessor, ids_L: np.ndarray, count: int, seed: int) -> Iterator[View]:
    """Up to `count` views of a Sudoku, a maze or a "grid", the puzzle itself first; view v depends on (seed, v) alone.

    A maze has at most 8, one that is not square 4.

    Raises:
        ValueError: more than one view of a task without known augmentations.
    """
    shape = processor.grid_shape
    itself = View(ids_L, BLANK_ROW, partial(_undo_text, processor, _unchanged))
    if count == 1:
        return iter([itself])
    if processor.task not in ("sudoku", "maze"):
        raise ValueError(f"num_votes={count}: task={processor.task!r} has no known augmentations; allowed: 1")
    if processor.task == "maze":
        count = min(count, NUM_DIHEDRALS if shape[0] == shape[1] else NUM_DIHEDRALS // 2)
    maps = (
        _sudoku_maps(shape[0], number, seed) if processor.task == "sudoku" else _maze_maps(shape, number)
        for number in range(1, count)
    )
    moved = (View(there(ids_L), BLANK_ROW, partial(_undo_text, processor, back)) for there, back in maps)
    return chain([itself], moved)


def arc_views(
    processor: GridProcessor, colours_hw: np.ndarray, rows_V: np.ndarray, augmentations_VA: np.ndarray
) -> Iterator[View]:
    """The views of an arc grid (uint8) under these augmentations, with these rows of the table."""
    for row, augmentation_A in zip(rows_V.tolist(), augmentations_VA, strict=True):
        moved = augment_colours(colours_hw, augmentation_A)
        yield View(processor.encode(moved.tolist()).numpy(), row, partial(_undo_arc, processor, augmentation_A))


def rows_of_task(index: PuzzleIndex, task: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Up to `count` rows int64 [V] of a task and their augmentations uint8 [V, 11], those not augmented first.

    Raises:
        ValueError: an unknown task, with the nearest known.
    """
    rows = index.rows_of(task)
    is_augmented = (index.augmentation_of_row[rows] != IDENTITY).any(axis=1)
    rows = rows[np.argsort(is_augmented, kind="stable")][:count]
    return rows, index.augmentation_of_row[rows]


def draw_colour_augmentations(colours_hw: np.ndarray, count: int, seed: int, square: bool = True) -> np.ndarray:
    """uint8 [V, 11], V <= count: the identity, then drawn augmentations; the images of the grid all differ.

    Args:
        square: whether a transposed grid fits wherever the grid does.
    """
    trials = np.arange(1, TRIALS_A_VIEW * (count - 1) + 1)
    drawn = np.zeros((len(trials), AUGMENTATION_BYTES), dtype=np.uint8)
    drawn[:, 0] = draw_dihedral(seed, trials, square)
    drawn[:, 2:] = random_permutations(seed, trials, STREAM_VOTE_COLOURS, NUM_COLOURS - 1) + 1  # 0, the ground, stays
    kept, seen = [IDENTITY], {colours_to_text(colours_hw)}
    for augmentation_A in drawn:
        if len(kept) == count:
            break
        image = colours_to_text(augment_colours(colours_hw, augmentation_A))
        if image not in seen:
            seen.add(image)
            kept.append(augmentation_A)
    return np.stack(kept)


def augment_colours(colours_hw: np.ndarray, augmentation_A: np.ndarray) -> np.ndarray:
    """The arc grid with its colours renamed, then mapped by the dihedral map."""
    return Dihedral.from_number(int(augmentation_A[0])).apply(augmentation_A[1:][colours_hw])


def _undo_arc(processor: GridProcessor, augmentation_A: np.ndarray, answer_ids: np.ndarray) -> str:
    colours_hw = crop_colours(answer_ids.reshape(processor.grid_shape))
    original = np.argsort(augmentation_A[1:]).astype(np.uint8)  # of a permutation, its inverse
    return colours_to_text(original[Dihedral.from_number(int(augmentation_A[0])).inverse().apply(colours_hw)])


def _undo_text(processor: GridProcessor, inverse: IdsMap, answer_ids: np.ndarray) -> str:
    text = processor.decode(inverse(answer_ids))
    return text if isinstance(text, str) else ""


def _sudoku_maps(side: int, number: int, seed: int) -> tuple[IdsMap, IdsMap]:
    """There and back."""
    augmentation = SudokuAugmentation.draw(seed, number, side)
    return augmentation.apply, augmentation.inverse().apply


def _maze_maps(shape: Sequence[int], number: int) -> tuple[IdsMap, IdsMap]:
    dihedral = Dihedral.from_number(number)
    return partial(_moved, dihedral, shape), partial(_moved, dihedral.inverse(), shape)


def _unchanged(ids_L: np.ndarray) -> np.ndarray:
    return ids_L


def _moved(dihedral: Dihedral, shape: Sequence[int], ids_L: np.ndarray) -> np.ndarray:
    return dihedral.apply(ids_L.reshape(shape)).reshape(-1)
