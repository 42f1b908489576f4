"""One optimiser step: refill the slots, one supervision step forward and back, update, release what is finished.

Source: arXiv 2510.04871, section 2 and the public code's pretrain.py. Shapes: B slots of this process, b of one part
of it (gradient accumulation), L cells.
"""

from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from ..losses_trm import IGNORE_INDEX, TOKEN_LOSSES, halting_loss, is_exact
from ..modeling_trm import TRMForGridReasoning
from ..recursion_trm import RecursionState
from .arguments import OptimisationArguments
from .ema import ExponentialMovingAverage
from .optimisers import core_parameters
from .rows import RowFeed
from .schedule import lr_factor, set_lr
from .slots import Slots, exploration

PAD_ID = 0  # of every alphabet


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
        """The parts of a batch as one."""
        *columns, states = zip(*parts, strict=True)
        return Outcome(*map(torch.cat, columns), RecursionState.join(states))  # type: ignore[call-arg, arg-type]


class TrainingStep:
    """What changes the weights: calling it with a step number performs that step.

    Args:
        model: on its device; `wrapped` is the same model as accelerate prepared it (autocast, several processes).
        slots: this process's share of the batch, `feed` the rows for it.
    """

    def __init__(
        self,
        arguments: OptimisationArguments,
        accelerator: Accelerator,
        model: TRMForGridReasoning,
        wrapped: nn.Module,
        optimisers: list[Optimizer],
        ema: ExponentialMovingAverage,
        feed: RowFeed,
        slots: Slots,
        seed: int,
    ) -> None:
        self.arguments, self.accelerator, self.model, self.wrapped = arguments, accelerator, model, wrapped
        self.optimisers, self.ema, self.feed, self.slots, self.seed = optimisers, ema, feed, slots, seed
        self.core = list(core_parameters(model).values())
        self.token_loss = TOKEN_LOSSES[arguments.token_loss]

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Sums over this process's slots, scalars on the device: nothing here waits for it."""
        slots, max_steps = self.slots, self.model.config.halt_max_steps
        slots.refill(*self.feed(step), self.model.initial_state(len(slots.steps)))
        outcome = self._forward_backward()
        self._update(step)
        done = outcome.exact if self.arguments.release_when == "exact" else outcome.halted
        minimum = exploration(self.seed, step, self.feed.slots, self.arguments.halt_exploration, max_steps)
        slots.advance(outcome.state, done, torch.from_numpy(minimum).to(done.device), max_steps)
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

    def _forward_backward(self) -> Outcome:
        """The gradient of the batch's mean loss, in `gradient_accumulation` parts."""
        parts = torch.arange(len(self.slots.steps), device=self.slots.steps.device).chunk(
            self.arguments.gradient_accumulation
        )
        outcomes = []
        for rows in parts[:-1]:
            with self.accelerator.no_sync(self.wrapped):
                outcomes.append(self._part(rows))
        outcomes.append(self._part(parts[-1]))
        return Outcome.join(outcomes)

    def _part(self, rows: Tensor) -> Outcome:
        slots = self.slots
        out = self.wrapped(slots.inputs[rows], puzzle_ids=slots.puzzle_ids[rows], state=slots.state.select(rows))
        targets = self._targets(rows)
        with torch.no_grad():
            exact, right = is_exact(out.logits, targets), (out.logits.argmax(-1) == targets).sum(-1)
        token_loss = self.token_loss(out.logits, targets, self.arguments.label_smoothing)
        halt_loss = halting_loss(out.halt_logits, exact)
        loss = (token_loss + self.arguments.halt_loss_weight * halt_loss).sum() / len(slots.steps)
        self.accelerator.backward(loss)
        cells = (targets != IGNORE_INDEX).sum(-1)
        losses = token_loss.detach().float(), halt_loss.detach()
        return Outcome(*losses, exact, out.halt_logits.detach() > 0, cells, right, out.state)

    def _targets(self, rows: Tensor) -> Tensor:
        """The labels [b, L] but for the cells that are not trained: padding and, if the recipe says so, the givens."""
        inputs, labels = self.slots.inputs[rows], self.slots.labels[rows]
        targets = labels.masked_fill(labels.eq(PAD_ID), IGNORE_INDEX)
        if self.arguments.loss_on == "blanks":
            targets = targets.masked_fill(inputs.ne(self.model.config.blank_token_id), IGNORE_INDEX)
        return targets

    def _update(self, step: int) -> None:
        arguments = self.arguments
        self._average_table_gradient()
        if arguments.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.core, arguments.clip_grad_norm)
        factor = lr_factor(
            step,
            warmup_steps=arguments.warmup_steps,
            total_steps=arguments.train_steps,
            kind=arguments.lr_schedule,
            min_ratio=arguments.lr_min_ratio,
        )
        set_lr(self.optimisers, factor)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        self.ema.update()

    def _average_table_gradient(self) -> None:
        """Give every process the rows of all: DDP leaves the table out, as not every backend reduces sparse ones."""
        table, processes = self.model.model.puzzle_emb, self.accelerator.num_processes
        if table is None or processes == 1:
            return
        grad = table.weight.grad
        rows, values = self.accelerator.gather(grad._indices()[0]), self.accelerator.gather(grad._values())
        table.weight.grad = torch.sparse_coo_tensor(rows[None], values / processes, grad.shape)
