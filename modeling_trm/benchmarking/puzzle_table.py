"""The update of the puzzle table against its number of rows: forward, gradient and sign-SGD step of a batch of rows.

As a contrast the same update by a gradient as large as the table (arXiv 2510.04871's code has the sparse one too).
"""

from collections.abc import Callable, Iterator
from itertools import cycle

import torch
from torch import Tensor

from ..puzzle_table_trm import PuzzleTable
from ..training.optimisers import SignSGD
from .measure import Group, Line
from .settings import Settings

CHANNELS = 512
SPARSE_UPDATES = 20  # timed together: one alone takes a millisecond or two
LR, WEIGHT_DECAY = 1e-4, 0.1


def groups(settings: Settings) -> Iterator[Group]:
    """One group: the sizes take turns. The largest default table and its dense gradient take 2 GB each."""
    torch.manual_seed(0)
    device, batch_size = settings.device, settings.table_batch
    lines: list[Line] = []
    for rows in sorted(set(settings.rows)):
        table = PuzzleTable(rows, CHANNELS).to(device)
        # Other rows every time, which for a large table are not in the processor's cache; as many for every table.
        draws = (SPARSE_UPDATES + 1) * (settings.rounds + 1)
        batches = cycle([torch.randperm(rows, device=device)[:batch_size].clone() for _ in range(draws)])
        gradient = torch.randn(batch_size, CHANNELS, device=device)
        updates = {"sparse update": (sparse_update, SPARSE_UPDATES), "dense update": (dense_update, 1)}
        for work, (update, calls) in updates.items():
            labels = {"work": work, "rows": rows, "batch": batch_size}
            lines.append(Line(labels, update(table, batches, gradient), calls=calls))
    yield Group(lines)


def sparse_update(table: PuzzleTable, batches: Iterator[Tensor], gradient: Tensor) -> Callable[[], None]:
    """As in training: the batch's rows, their sparse gradient, and the step of sign-SGD."""
    table.sparse = True
    optimiser = SignSGD([table.weight], lr=LR, weight_decay=WEIGHT_DECAY)

    def run() -> None:
        table(next(batches)).backward(gradient)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    return run


def dense_update(table: PuzzleTable, batches: Iterator[Tensor], gradient: Tensor) -> Callable[[], None]:
    """The same sign update by a gradient as large as the table."""

    def run() -> None:
        torch.nn.functional.embedding(next(batches), table.weight, sparse=False).backward(gradient)
        with torch.no_grad():
            assert table.weight.grad is not None
            table.weight.mul_(1 - LR * WEIGHT_DECAY).add_(table.weight.grad.sign_(), alpha=-LR)
        table.weight.grad = None

    return run
