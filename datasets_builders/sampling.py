"""The training stream: row `index` is a pure function of (seed, index), so a run resumes by remembering a number.

Without source weights a pass over the puzzles is a permutation of its own for every epoch, the order of the reference.
With them a source is drawn by weight, then one of its puzzles, both with replacement.

Shapes: N puzzles of the set, n rows asked for, L positions.
"""

import warnings
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np

from datasets_builders.mazes import distances_to_goal, trace_paths
from modeling_trm.augmentation_trm import MazeAugmentation, SudokuAugmentation, SudokuDraws, draw_dihedral
from modeling_trm.randomness_trm import random_bits, random_floats

if TYPE_CHECKING:
    from datasets_builders.features import PuzzleSet

STREAM_ORDER, STREAM_SOURCE, STREAM_REVEAL, STREAM_SHARE = 11, 12, 13, 14
BLANK_ID = 1  # of a Sudoku


class TrainingStream:
    """An endless sequence of training rows.

    Args:
        puzzles: what to draw from.
        seed: the stream's seed; not negative.
        augment: draw a symmetry of the puzzle for every row (Sudoku and square or oblong mazes; puzzles of task
            "grid" have no known symmetry and come as they are). The answer of a maze is then always derived anew,
            with the tie-break of `mazes`, also where the data set's own answers follow another one.
        source_weights: {source: weight}; sources left out are not drawn.
    """

    def __init__(
        self,
        puzzles: "PuzzleSet",
        *,
        seed: int,
        augment: bool = True,
        source_weights: dict[str, float] | None = None,
    ):
        if len(puzzles) == 0:
            raise ValueError("the puzzle set is empty: nothing to train on")
        self.puzzles = puzzles
        self.seed = seed
        self.augment = augment
        self.source_weights = source_weights
        self._members = _members_by_source(puzzles.sources, source_weights) if source_weights is not None else None

    def __len__(self) -> int:
        """Puzzles in one epoch; the stream itself has no end."""
        return len(self.puzzles)

    @property
    def questions(self) -> np.ndarray:
        """uint8 [n, L]: of the puzzles that can be drawn, as they are."""
        return self.puzzles.inputs if self._members is None else self.puzzles.inputs[np.concatenate(self._members[1])]

    def puzzle_numbers(self, indices_n: np.ndarray) -> np.ndarray:
        """int64 [n]: which puzzle of the set each row takes."""
        indices_n = np.asarray(indices_n, dtype=np.int64)
        if self._members is None:
            epochs_n, places_n = np.divmod(indices_n, len(self.puzzles))
            numbers_n = np.empty_like(indices_n)
            for epoch in np.unique(epochs_n).tolist():
                here = epochs_n == epoch
                numbers_n[here] = epoch_order(self.seed, epoch, len(self.puzzles))[places_n[here]]
            return numbers_n
        bounds, members = self._members
        draws_n2 = random_floats(self.seed, indices_n, STREAM_SOURCE, 2)
        numbers_n = np.empty_like(indices_n)
        sources_n = np.searchsorted(bounds, draws_n2[:, 0], side="right")
        for source, rows in enumerate(members):
            here = sources_n == source
            numbers_n[here] = rows[(draws_n2[here, 1] * len(rows)).astype(np.int64)]
        return numbers_n

    def augmentation(self, index: int) -> SudokuAugmentation | MazeAugmentation | None:
        """The augmentation of row `index` as a value; None where the row is the puzzle itself."""
        task, (height, width) = self.puzzles.task, self.puzzles.processor.grid_shape
        if not self.augment or task not in ("sudoku", "maze"):
            return None
        if task == "sudoku":
            return SudokuAugmentation.draw(self.seed, index, height)
        return MazeAugmentation.draw(self.seed, index, height == width)

    def rows(self, indices_n: np.ndarray, reveal: float = 0.0) -> dict[str, np.ndarray]:
        """Rows of the stream.

        Args:
            indices_n: int64 [n], which rows.
            reveal: the largest share of the blanks that is filled in with the answer; each row's own share is drawn
                uniformly from 0 to it, so that easier and harder rows always come together. Sudoku only.

        Returns:
            inputs uint8 [n, L], labels uint8 [n, L], puzzle_ids int64 [n] (0: these tasks share the blank embedding).
        """
        indices_n = np.asarray(indices_n, dtype=np.int64)
        numbers_n = self.puzzle_numbers(indices_n)
        if self.augment and self.puzzles.task == "maze":
            inputs, labels = self._maze_rows(indices_n, numbers_n)
        else:
            inputs, labels = self.puzzles.inputs[numbers_n], self.puzzles.labels[numbers_n]
        if self.augment and self.puzzles.task == "sudoku":
            draws = SudokuDraws.draw(self.seed, indices_n, self.puzzles.processor.grid_shape[0])
            inputs, labels = draws.apply(inputs), draws.apply(labels)
        if reveal:
            inputs = self._reveal(indices_n, inputs, labels, reveal)
        return {"inputs": inputs, "labels": labels, "puzzle_ids": np.zeros(len(indices_n), dtype=np.int64)}

    def _maze_rows(self, indices_n: np.ndarray, numbers_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        height, width = self.puzzles.processor.grid_shape
        variants_n = draw_dihedral(self.seed, indices_n, height == width)
        inputs_8NL, labels_8NL = self._maze_variants
        return inputs_8NL[variants_n, numbers_n], labels_8NL[variants_n, numbers_n]

    @cached_property
    def _maze_variants(self) -> tuple[np.ndarray, np.ndarray]:
        """uint8 [8, N, L] (4 for oblong mazes): every maze under every symmetry, and its answers derived anew."""
        height, width = self.puzzles.processor.grid_shape
        mazes_NHW = self.puzzles.inputs.reshape(-1, height, width)
        distances_NHW = distances_to_goal(mazes_NHW)
        self._warn_of_other_answers(trace_paths(mazes_NHW, distances_NHW))
        inputs, labels = [], []
        for number in range(8 if height == width else 4):
            augmentation = MazeAugmentation.from_number(number)
            turned = augmentation.apply(mazes_NHW)
            answers = trace_paths(turned, augmentation.apply(distances_NHW))
            inputs.append(turned.reshape(len(self.puzzles), -1))
            labels.append(answers.reshape(len(self.puzzles), -1))
        return np.stack(inputs), np.stack(labels)

    def _warn_of_other_answers(self, derived_NHW: np.ndarray) -> None:
        others = int((derived_NHW.reshape(self.puzzles.labels.shape) != self.puzzles.labels).any(axis=1).sum())
        if others:
            warnings.warn(
                f"{others} of {len(self.puzzles)} mazes have another shortest path as their answer than the first one "
                "in the order up, down, left, right; augmentation derives every answer anew by that order, so look at "
                "'valid and shortest' rather than at 'exact', or train with augment=False",
                stacklevel=2,
            )

    def _reveal(self, indices_n: np.ndarray, inputs_nL: np.ndarray, labels_nL: np.ndarray, reveal: float) -> np.ndarray:
        if self.puzzles.task != "sudoku":
            raise ValueError(f"reveal={reveal} is for Sudoku only; the puzzles are of task {self.puzzles.task!r}")
        if not 0 <= reveal <= 1:
            raise ValueError(f"reveal={reveal} must be between 0 and 1")
        share_n = reveal * random_floats(self.seed, indices_n, STREAM_SHARE, 1)[:, 0]
        is_blank = inputs_nL == BLANK_ID
        keys = random_floats(self.seed, indices_n, STREAM_REVEAL, inputs_nL.shape[1])
        keys[~is_blank] = 2.0
        # Exactly this many of a row's blanks: those with its smallest keys.
        count_n = np.rint(share_n * is_blank.sum(axis=1)).astype(np.int64)
        smallest = np.sort(keys, axis=1)
        threshold_n = smallest[np.arange(len(keys)), np.maximum(count_n - 1, 0)]
        revealed = (keys <= threshold_n[:, None]) & is_blank & (count_n > 0)[:, None]
        return np.where(revealed, labels_nL, inputs_nL)


@lru_cache(maxsize=4)  # a batch touches one epoch, or two where one ends
def epoch_order(seed: int, epoch: int, num_puzzles: int) -> np.ndarray:
    """int64 [N]: the order of the puzzles in an epoch."""
    # The epoch is part of the seed of the keys, the puzzle their counter.
    epoch_seed = int(random_bits(seed, np.array([epoch]), STREAM_ORDER, 1)[0, 0])
    return np.argsort(random_bits(epoch_seed, np.arange(num_puzzles), STREAM_ORDER, 1)[:, 0], kind="stable")


def _members_by_source(sources_N: np.ndarray, source_weights: dict[str, float]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Upper bounds of the sources in [0, 1), and the puzzles of each."""
    known = sorted(set(sources_N.tolist()))
    unknown = sorted(set(source_weights) - set(known))
    if unknown:
        raise ValueError(f"source_weights names {unknown}, which the puzzle set lacks; it has {known}")
    for name, weight in source_weights.items():
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            raise ValueError(f"source_weights: {name!r} is {weight!r}; allowed: finite numbers from 0")
    weights = {name: float(weight) for name, weight in source_weights.items() if weight != 0}
    if not weights:
        raise ValueError(f"source_weights={source_weights}: one of them must be above 0")
    names = sorted(weights)
    bounds = np.cumsum([weights[name] for name in names]) / sum(weights.values())
    bounds[-1] = 1.0
    return bounds, [np.flatnonzero(sources_N == name) for name in names]
