"""The grids of one size in a batch: their slots, the rows that come into them, and what is drawn for them.

A batch may hold grids of several sizes, one bucket each. Shapes: B slots of this process, b of one part of them
(gradient accumulation), L cells.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from ..modeling_trm import TRMForGridReasoning
from ..recursion_trm import RecursionState
from .arguments import OptimisationArguments
from .data import RunData
from .improvement import ImprovementPath
from .perturbation import Perturbation
from .rows import RowFeed, send
from .slots import Slots, exploration


class Outcome(NamedTuple):
    """What the supervision step made of each slot of a part: [b] each, without gradient, and the latents to carry."""

    token_loss: Tensor
    halt_loss: Tensor
    exact: Tensor
    halted: Tensor
    cells: Tensor
    cells_right: Tensor
    state: RecursionState

    @staticmethod
    def join(parts: "list[Outcome]") -> "Outcome":
        """The parts of a bucket as one."""
        *columns, states = zip(*parts, strict=True)
        return Outcome(*map(torch.cat, columns), RecursionState.join(states))  # type: ignore[call-arg, arg-type]


class Bucket:
    """Slots of one grid size; between `begin` and `end` of a step, the supervision step is taken.

    Args:
        model: on its device. feed: the rows for this process's slots. seq_len: L.
        first: number of this size's first slot among the `total` ones of all sizes and processes, which keeps apart
            what is drawn for them.
    """

    def __init__(
        self,
        arguments: OptimisationArguments,
        model: TRMForGridReasoning,
        feed: RowFeed,
        seq_len: int,
        seed: int,
        first: int = 0,
        total: int | None = None,
    ) -> None:
        self.arguments, self.feed, self.seed, self.numbers = arguments, feed, seed, feed.slots + first
        self.slots = Slots.empty(model, len(feed.slots), seq_len)
        self.perturbation = Perturbation(arguments, model, seed, self.numbers, seq_len)
        is_dis, steps = arguments.objective == "dis", model.config.halt_max_steps
        self.path = ImprovementPath(seed, self.numbers, total or feed.batch_size, steps) if is_dis else None

    def __len__(self) -> int:
        return len(self.numbers)

    def parts(self) -> list[slice]:
        """The slots in `gradient_accumulation` parts."""
        size = -(-len(self) // self.arguments.gradient_accumulation)
        return [slice(start, start + size) for start in range(0, len(self), size)]

    def begin(self, step: int) -> Tensor:
        """Give released slots new puzzles and disturb the latents.

        Returns:
            [B], of which slots this is the only step: their puzzles began near the end.
        """
        slots = self.slots
        inputs, labels, puzzle_ids = self.feed(step)
        fresh, once = self.perturbation.start(step), torch.zeros_like(slots.released)
        if self.arguments.corrupted_share:
            corrupted, z_H = self.perturbation.corrupted(step, labels, puzzle_ids)
            fresh = fresh.replaced(z_H=z_H.to(fresh.z_H.dtype)).where(corrupted, fresh)
            once = slots.released & corrupted
        slots.refill(inputs, labels, puzzle_ids, fresh)
        slots.state = self.perturbation.disturb(step, slots.state)
        return once

    def end(self, step: int, outcome: Outcome, once: Tensor, max_steps: int) -> dict[str, Tensor]:
        """Release what is finished. Returns sums over the slots, scalars on the device."""
        slots = self.slots
        done = outcome.exact if self.arguments.release_when == "exact" else outcome.halted
        if self.path is not None:
            done = torch.zeros_like(done)  # its path ends at the last step
        minimum = exploration(self.seed, step, self.numbers, self.arguments.halt_exploration, max_steps)
        state = outcome.state.damped(slots.state, self.arguments.damping)
        slots.advance(state, done | once, send(minimum, done.device).masked_fill(once, 0), max_steps)
        return {
            "slots": torch.ones_like(outcome.token_loss).sum(),
            "token_loss": outcome.token_loss.sum(),
            "halt_loss": outcome.halt_loss.sum(),
            "cells": outcome.cells.sum(),
            "cells_right": outcome.cells_right.sum(),
            "released": slots.released.sum(),
            "released_exact": (slots.released & outcome.exact).sum(),
            "released_steps": (slots.released * slots.steps).sum(),
        }


def open_buckets(
    accelerator: Accelerator, model: TRMForGridReasoning, data: RunData, reveal: Callable[[int], float]
) -> list[Bucket]:
    """This process's share of the batch, of each size of grids, the model's own first.

    Args:
        reveal: see RowFeed.

    Raises:
        ValueError: a batch_size that the processes or the parts of gradient accumulation cannot share, naming it.
    """
    processes, first, buckets = accelerator.num_processes, 0, []
    total = sum(one.recipe.optimisation.batch_size for one in data.of_each_size)
    for one in data.of_each_size:
        o = one.recipe.optimisation
        share, rest = divmod(o.batch_size, processes)
        if rest or o.gradient_accumulation > share:
            where = f"other_sizes: {one.grid}: " if one is not data else ""
            raise ValueError(
                f"{where}batch_size={o.batch_size} must be a multiple of the {processes} processes and leave each at "
                f"least gradient_accumulation={o.gradient_accumulation} puzzles"
            )
        slots = np.arange(share) + accelerator.process_index * share
        feed = RowFeed(one.stream, slots, o.batch_size, reveal, accelerator.device)
        buckets.append(Bucket(o, model, feed, one.processor.seq_len, one.recipe.run.seed, first, total))
        first += o.batch_size
    return buckets
