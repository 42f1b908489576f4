"""A puzzle table as a dictionary: what a row stands for -> its vector."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from modeling_trm import TRMForGridReasoning
from modeling_trm.puzzle_index_trm import IDENTITY, PuzzleIndex

Key = tuple[str | None, bytes]


def make_index(rows_of_task: dict[str, int], seed: int = 0) -> PuzzleIndex:
    """Tasks with that many rows each, in turn (one row of every task, then the second ones), random augmentations."""
    rng = np.random.default_rng(seed)
    numbers = [-1]
    for turn in range(max(rows_of_task.values(), default=0)):
        numbers += [number for number, count in enumerate(rows_of_task.values()) if turn < count]
    augmentations = [np.array([rng.integers(8), *rng.permutation(10)]) for _ in numbers]
    augmentations[0] = IDENTITY
    return PuzzleIndex(tuple(rows_of_task), np.array(numbers), np.stack(augmentations).astype(np.uint8))


def as_dict(index: PuzzleIndex, weight: Tensor) -> dict[Key, Tensor]:
    """The oracle: what a row stands for -> its vector, in the order of the rows."""
    names: list[str | None] = [None if number < 0 else index.tasks[number] for number in index.task_of_row]
    keys = [(name, bytes(augmentation)) for name, augmentation in zip(names, index.augmentation_of_row)]
    assert len(set(keys)) == len(keys) == len(weight)
    return dict(zip(keys, weight.detach().clone()))


def assert_same_rows(model: Any, expected: dict[Key, Tensor]) -> None:
    table = model.base_model.puzzle_emb
    found = as_dict(table.index, table.weight)
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], row) for key, row in expected.items())
    assert model.config.num_puzzles == table.num_embeddings == len(table.index) == len(expected)


def logits_of(model: TRMForGridReasoning, tasks: list[str]) -> Tensor:
    """Logits for the blank puzzle and every row of the tasks."""
    rows = np.concatenate([[0], *(model.puzzle_index.rows_of(task) for task in tasks)])
    ids = torch.arange(16).remainder(6).expand(len(rows), 16)
    with torch.no_grad():
        return model(ids, puzzle_ids=torch.from_numpy(rows)).logits
