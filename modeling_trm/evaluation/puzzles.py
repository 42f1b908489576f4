"""The puzzles that an evaluation reads, whether they fit a model, and a part of them that stands for all."""

from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..modeling_trm import TRMForGridReasoning
from ..processing_trm import GridProcessor
from ..utils.loading import check_model_fits

PAD_TOKEN_ID = 0  # of every task's alphabet: a label of padding is not scored


class Puzzles(Protocol):
    """The part of `datasets_builders.features.PuzzleSet` that an evaluation reads; inputs and labels are uint8 [N, L],
    puzzle_ids int64 [N] or None for the blank row of the puzzle table."""

    @property
    def task(self) -> str: ...
    @property
    def inputs(self) -> np.ndarray: ...
    @property
    def labels(self) -> np.ndarray: ...
    @property
    def sources(self) -> np.ndarray: ...
    @property
    def ratings(self) -> np.ndarray: ...
    @property
    def puzzle_ids(self) -> np.ndarray | None: ...
    @property
    def processor(self) -> GridProcessor: ...
    @property
    def fingerprint(self) -> str: ...
    def __len__(self) -> int: ...
    def select(self, indices: np.ndarray) -> Self: ...


P = TypeVar("P", bound=Puzzles)


def tensors_of(
    puzzles: Puzzles, device: torch.device, rows: slice = slice(None)
) -> tuple[Tensor, Tensor | None, Tensor]:
    """input_ids [B, L], puzzle_ids [B] or None, and labels [B, L] of the rows, int64."""
    input_ids, labels = (torch.tensor(ids[rows], device=device).long() for ids in (puzzles.inputs, puzzles.labels))
    puzzle_ids = None if puzzles.puzzle_ids is None else torch.tensor(puzzles.puzzle_ids[rows], device=device)
    return input_ids, puzzle_ids, labels


def check_puzzles_fit(model: TRMForGridReasoning, puzzles: Puzzles) -> None:
    """Raise a ValueError when the puzzles cannot be fed to this model, naming both sides, or are none at all."""
    if len(puzzles) == 0:
        raise ValueError(f"the evaluation set of task {puzzles.task!r} is empty: there is no puzzle to score")
    check_model_fits(model, puzzles.processor)


def choose_subset(puzzles: P, count: int, seed: int = 0) -> P:
    """At most `count` puzzles, every source in its proportion, the same ones for the same seed; the order is kept."""
    return puzzles.select(stratified_indices(puzzles.sources, count, seed))


def stratified_indices(sources_N: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Sorted indices of `count` rows, shared out over the sources by largest remainder (all rows if there are fewer).

    Raises:
        ValueError: when `count` is below 1.
    """
    if count < 1:
        raise ValueError(f"the number of puzzles to choose must be at least 1, got {count}")
    total = len(sources_N)
    if count >= total:
        return np.arange(total)
    names, sizes = np.unique(sources_N, return_counts=True)
    whole, remainder = np.divmod(sizes * count, total)
    largest_first = np.argsort(-remainder, kind="stable")
    whole[largest_first[: count - whole.sum()]] += 1
    # RandomState, because numpy promises never to change its stream; Generator's may change with a release.
    random = np.random.RandomState(seed)
    chosen = [
        random.permutation(np.flatnonzero(sources_N == name))[:size] for name, size in zip(names, whole, strict=True)
    ]
    return np.sort(np.concatenate(chosen))
