"""The training stream of ARC: every row is a pure function of (seed, index), as in sampling.TrainingStream.

As in the public code of arXiv 2510.04871 (puzzle_dataset.py, dataset/build_arc_dataset.py): an epoch takes the tasks in
a random order, of each task one of its augmented puzzles, and that puzzle's examples one after another in random order;
input and output are moved over the canvas by one and the same offset, except for one example of the puzzle.
Deviation: the reference draws the offsets when it builds the data, so that they recur; here every epoch draws its own.
Why: nothing has to be stored for it. Link: github.com/SamsungSAILMontreal/TinyRecursiveModels, dataset/

Shapes: E trained examples, T tasks with any, n rows asked for, 2 input and output, S side of the canvas, L = S * S,
K = S + 4 side of a stored canvas.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from datasets_builders.sampling import epoch_order
from modeling_trm.arc_augmentation_trm import ArcAugmentation
from modeling_trm.processing_trm import EOS_TOKEN_ID, FIRST_COLOUR_ID, NUM_COLOURS, PAD_TOKEN_ID
from modeling_trm.randomness_trm import random_bits, random_floats

if TYPE_CHECKING:
    from datasets_builders.arc_set import ArcSet, PairRef

STREAM_EPOCH, STREAM_EXAMPLE, STREAM_PUZZLE, STREAM_STILL, STREAM_OFFSET = range(31, 36)
# Codes of a stored canvas: 0..9 the colours, then the cells along the four edges of the grid, then all others.
TOP, BOTTOM, LEFT, RIGHT, OUTSIDE = range(NUM_COLOURS, NUM_COLOURS + 5)
NUM_CODES = OUTSIDE + 1
# Two cells on each side: one for the edge codes, one that is OUTSIDE in every row and column, to clip to.
BORDER = 2
PLANS_KEPT = 4  # a batch touches one epoch, or two where one ends; a thread may ask for the next one


class ArcRow(NamedTuple):
    """What row `index` of a stream is: see ArcStream.describe."""

    task: str
    pair: "PairRef"
    puzzle_id: int
    augmentation: ArcAugmentation
    offset: tuple[int, int]


class EpochPlan(NamedTuple):
    """An epoch: at each of its E places the example, its row of the puzzle table, and where the grids begin."""

    examples: np.ndarray  # int64 [E]
    puzzle_ids: np.ndarray  # int64 [E]
    offsets: np.ndarray  # int64 [E, 2] (row, column)


class ArcStream:
    """An endless sequence of training rows.

    Args:
        arc_set: what to draw from.
        seed: the stream's seed; not negative.
        augment: draw one of the task's augmentations in every epoch, and translations; without it the examples come
            as they are, the tasks in random order all the same.

    Raises:
        ValueError: the set has nothing to train on, or the seed is negative.
    """

    def __init__(self, arc_set: "ArcSet", *, seed: int, augment: bool = True):
        if not arc_set.examples:
            raise ValueError("the ARC set has no examples: nothing to train on")
        if seed < 0:
            raise ValueError(f"seed={seed} must not be negative")
        self.arc_set = arc_set
        self.seed = seed
        self.augment = augment
        self.side = arc_set.options.max_grid_size
        pairs = [arc_set.pair(ref) for ref in arc_set.examples]
        grids = [grid for pair in pairs for grid in (pair.input, pair.output) if grid is not None]
        self._canvases = stored_canvases(grids, self.side)
        self._shapes = np.array([grid.shape for grid in grids], dtype=np.int64).reshape(-1, 2, 2)  # [E, 2, (h, w)]
        tasks, self._task_of_example, self._sizes = np.unique(
            [ref.task for ref in arc_set.examples], return_inverse=True, return_counts=True
        )
        rows = [arc_set.index.rows_of(arc_set.names[task]) for task in tasks]
        self._first_row = np.array([of_task[0] for of_task in rows])  # a task's rows are neighbours
        self._num_rows = np.array([len(of_task) for of_task in rows])
        self._plans: dict[int, EpochPlan] = {}

    def __len__(self) -> int:
        """Rows in one epoch; the stream itself has no end."""
        return len(self.arc_set.examples)

    def rows(self, indices_n: np.ndarray, reveal: float = 0.0) -> dict[str, np.ndarray]:
        """inputs uint8 [n, L], labels uint8 [n, L], puzzle_ids int64 [n].

        Raises:
            ValueError: reveal is not 0; an ARC grid has no blanks to reveal.
        """
        if reveal:
            raise ValueError(f"reveal={reveal} is for Sudoku only; ARC grids have no blanks")
        plan = self._places(np.asarray(indices_n, dtype=np.int64))
        augmentations = self.arc_set.index.augmentation_of_row[plan.puzzle_ids]
        inputs, labels = self._tokens(plan.examples, augmentations, plan.offsets)
        return {"inputs": inputs, "labels": labels, "puzzle_ids": plan.puzzle_ids}

    def describe(self, index: int) -> ArcRow:
        """Row `index` as a value: which pair of which task, under which augmentation, where on the canvas."""
        plan = self._places(np.array([index]))
        pair, row = self.arc_set.examples[plan.examples[0]], int(plan.puzzle_ids[0])
        augmentation = ArcAugmentation.from_bytes(self.arc_set.index.augmentation_of_row[row])
        top, left = plan.offsets[0].tolist()
        return ArcRow(self.arc_set.names[pair.task], pair, row, augmentation, (top, left))

    def _places(self, indices_n: np.ndarray) -> EpochPlan:
        """The places of the epochs' plans that these rows are."""
        epochs_n, places_n = np.divmod(indices_n, len(self))
        epochs, which_n = np.unique(epochs_n, return_inverse=True)
        plans = [self._plan(epoch) for epoch in epochs.tolist()]
        if len(plans) == 1:
            return EpochPlan(*(field[places_n] for field in plans[0]))
        return EpochPlan(*(np.stack(fields)[which_n, places_n] for fields in zip(*plans, strict=True)))

    def _plan(self, epoch: int) -> EpochPlan:
        plan = self._plans.get(epoch)
        if plan is None:
            plan = self._draw_epoch(epoch)
            for old in list(self._plans)[: 1 - PLANS_KEPT]:
                self._plans.pop(old, None)
            self._plans[epoch] = plan
        return plan

    def _draw_epoch(self, epoch: int) -> EpochPlan:
        num_tasks, examples_E = len(self._sizes), np.arange(len(self))
        rank_T = np.empty(num_tasks, dtype=np.int64)
        rank_T[epoch_order(self.seed, epoch, num_tasks)] = np.arange(num_tasks)
        seed = int(random_bits(self.seed, np.array([epoch]), STREAM_EPOCH, 1)[0, 0])
        keys_E = random_bits(seed, examples_E, STREAM_EXAMPLE, 1)[:, 0]
        order_E = np.lexsort((keys_E, rank_T[self._task_of_example]))
        tasks_E = self._task_of_example[order_E]
        if not self.augment:
            return EpochPlan(order_E, self._first_row[tasks_E], np.zeros((len(self), 2), dtype=np.int64))
        chosen_T = random_floats(seed, np.arange(num_tasks), STREAM_PUZZLE, 1)[:, 0] * self._num_rows
        puzzle_ids_E = (self._first_row + chosen_T.astype(np.int64))[tasks_E]
        offsets_E2 = self._draw_offsets(seed, order_E, puzzle_ids_E)
        # The tasks come one after another, so a task begins where the sizes of those before it end.
        order_T = np.argsort(rank_T)
        starts_T = np.cumsum(self._sizes[order_T]) - self._sizes[order_T]
        still_T = random_floats(seed, order_T, STREAM_STILL, 1)[:, 0] * self._sizes[order_T]
        offsets_E2[starts_T + still_T.astype(np.int64)] = 0
        return EpochPlan(order_E, puzzle_ids_E, offsets_E2)

    def _draw_offsets(self, seed: int, examples_E: np.ndarray, puzzle_ids_E: np.ndarray) -> np.ndarray:
        """int64 [E, 2]: uniform over the places where both grids of the pair fit."""
        room_E2 = self.side - self._shapes[examples_E].max(axis=1)
        transposed_E = _dihedral_bits(self.arc_set.index.augmentation_of_row[puzzle_ids_E, 0])[0]
        room_E2 = np.where(transposed_E[:, None], room_E2[:, ::-1], room_E2)
        return (random_floats(seed, examples_E, STREAM_OFFSET, 2) * (room_E2 + 1)).astype(np.int64)

    def _tokens(self, examples_n: np.ndarray, augmentations: np.ndarray, offsets_n2: np.ndarray) -> np.ndarray:
        """uint8 [2, n, L]: as ArcAugmentation.apply and GridProcessor.encode make them, for all rows at once.

        A cell of the canvas has a place in the augmented grid, which is less by the offset, and that one a place in
        the grid itself, where the stored canvas is read. Transposed first, then flipped, so undone the other way round.
        """
        num, side, stored = len(examples_n), self.side, self.side + 2 * BORDER
        transposed_n, *flips = _dihedral_bits(augmentations[:, 0])
        shapes_2n2 = self._shapes[examples_n].swapaxes(0, 1)
        shapes_2n2 = np.where(transposed_n[:, None], shapes_2n2[:, :, ::-1], shapes_2n2)
        steps = (np.where(transposed_n, 1, stored), np.where(transposed_n, stored, 1))
        lines = []
        for axis in (0, 1):
            places_nS = np.arange(side) - offsets_n2[:, axis, None]
            flipped_2nS = shapes_2n2[:, :, axis, None] - 1 - places_nS
            places_2nS = np.where(flips[axis][:, None], flipped_2nS, places_nS)
            lines.append((np.clip(places_2nS, -BORDER, side + 1) + BORDER) * steps[axis][:, None])
        origins_2n1 = (2 * examples_n + np.arange(2)[:, None])[:, :, None] * stored * stored
        index_2nSS = (lines[0] + origins_2n1)[:, :, :, None] + lines[1][:, :, None, :]
        codes_2nL = self._canvases.reshape(-1)[index_2nSS].reshape(2, num, -1)
        return np.take(_token_tables(augmentations), codes_2nL + np.arange(0, num * NUM_CODES, NUM_CODES)[:, None])


def stored_canvases(grids: list[np.ndarray], side: int) -> np.ndarray:
    """uint8 [number of grids, K, K]: each grid, its edge codes around it, OUTSIDE elsewhere; cell (0, 0) is at (2, 2).

    Which edges become EOS depends on the dihedral map: those that come to lie below and on the right of the grid.
    """
    canvases = np.full((len(grids), side + 2 * BORDER, side + 2 * BORDER), OUTSIDE, dtype=np.uint8)
    for canvas, grid in zip(canvases, grids, strict=True):
        bottom, right = BORDER + grid.shape[0], BORDER + grid.shape[1]
        canvas[BORDER:bottom, BORDER:right] = grid
        canvas[BORDER - 1, BORDER:right], canvas[bottom, BORDER:right] = TOP, BOTTOM
        canvas[BORDER:bottom, BORDER - 1], canvas[BORDER:bottom, right] = LEFT, RIGHT
    return canvases


def _dihedral_bits(numbers_n: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """bool [n] each: transposed, rows flipped, columns flipped (augmentation.Dihedral)."""
    return (numbers_n & 4) > 0, (numbers_n & 2) > 0, (numbers_n & 1) > 0


def _token_tables(augmentations: np.ndarray) -> np.ndarray:
    """uint8 [n, NUM_CODES]: the token of each code of a stored canvas under each augmentation [n, 11]."""
    transposed_n, flip_rows_n, flip_columns_n = _dihedral_bits(augmentations[:, 0])
    # Below the augmented grid is the grid's bottom edge, its top if flipped; of a transposed one its right or left.
    below_n = np.where(flip_rows_n, np.where(transposed_n, LEFT, TOP), np.where(transposed_n, RIGHT, BOTTOM))
    beside_n = np.where(flip_columns_n, np.where(transposed_n, TOP, LEFT), np.where(transposed_n, BOTTOM, RIGHT))
    tables = np.full((len(augmentations), NUM_CODES), PAD_TOKEN_ID, dtype=np.uint8)
    tables[:, :NUM_COLOURS] = augmentations[:, 1:] + FIRST_COLOUR_ID
    every = np.arange(len(augmentations))
    tables[every, below_n] = tables[every, beside_n] = EOS_TOKEN_ID
    return tables
