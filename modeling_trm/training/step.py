"""One optimiser step: refill the slots, one supervision step forward and back, update, release what is finished.

Source: arXiv 2510.04871, section 2 and the public code's pretrain.py. Shapes: B slots of this process, b of one part
of it (gradient accumulation), L cells.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from ..configuration_trm import TRMConfig
from ..losses_trm import IGNORE_INDEX, TOKEN_LOSSES, halting_loss, is_exact
from ..modeling_trm import TRMForGridReasoning
from ..recursion_trm import RecursionState
from .arguments import OptimisationArguments
from .ema import ExponentialMovingAverage
from .improvement import ImprovementPath
from .optimiser_state import load_optimiser_state, optimiser_state
from .optimisers import core_parameters
from .perturbation import PAD_ID, Perturbation
from .rows import RowFeed, send
from .schedule import lr_factor, set_lr, stage_at, step_weights
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
        """The parts of a batch as one."""
        *columns, states = zip(*parts, strict=True)
        return Outcome(*map(torch.cat, columns), RecursionState.join(states))  # type: ignore[call-arg, arg-type]


def check_stages(arguments: OptimisationArguments, config: TRMConfig) -> None:
    """Raise ValueError, naming field and value, where a curriculum would have to fall to the config's numbers."""
    depths, limits = list(arguments.depth_stages().values()), list(arguments.supervision_stages().values())
    final = (config.H_cycles, config.L_cycles)
    if depths and any(later < earlier for earlier, later in zip(depths[-1], final)):
        raise ValueError(
            f"depth_curriculum={arguments.depth_curriculum!r} ends with {list(depths[-1])}, deeper than the model's "
            f"H_cycles, L_cycles = {list(final)}, which hold from then on"
        )
    if limits and limits[-1] > config.halt_max_steps:
        raise ValueError(
            f"supervision_curriculum={arguments.supervision_curriculum!r} ends with {limits[-1]} steps; allowed: up to "
            f"halt_max_steps={config.halt_max_steps}, which holds from then on"
        )


class TrainingStep:
    """What changes the weights: calling it with a step number performs that step.

    Args:
        arguments: its curricula end at or below the model's H_cycles, L_cycles and halt_max_steps.
        model: on its device; `wrapped` is the same model as accelerate prepared it (autocast, several processes).
        slots: this process's share of the batch, `feed` the rows for it.
        train_steps: of the whole run; may be set later, but before a step is called for.

    Attributes:
        slots_begun: the step after which the slots began, all of them with new puzzles: 0 in a run without a break.
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
        train_steps: int,
    ) -> None:
        self.train_steps, self.slots_begun = train_steps, 0
        self.arguments, self.accelerator, self.model, self.wrapped = arguments, accelerator, model, wrapped
        self.optimisers, self.ema, self.feed, self.slots, self.seed = optimisers, ema, feed, slots, seed
        self.core = list(core_parameters(model).values())
        self.token_loss = TOKEN_LOSSES[arguments.token_loss]
        self.depths, self.limits = arguments.depth_stages(), arguments.supervision_stages()
        check_stages(arguments, model.config)
        max_steps, device = model.config.halt_max_steps, slots.steps.device
        self.weights = torch.tensor(step_weights(arguments.step_weights, max_steps), device=device)
        is_dis = arguments.objective == "dis"
        self.perturbation = Perturbation(arguments, model, seed, feed.slots)
        self.path = ImprovementPath(seed, feed.slots, arguments.batch_size, max_steps) if is_dis else None

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Sums over this process's slots, scalars on the device: nothing here waits for it."""
        slots, max_steps = self.slots, self.max_steps(step)
        once = self._refill(step)
        slots.state = self.perturbation.disturb(step, slots.state)
        outcome = self._forward_backward(step)
        self._update(step)
        done = outcome.exact if self.arguments.release_when == "exact" else outcome.halted
        if self.path is not None:
            done = torch.zeros_like(done)  # its path ends at the last step
        minimum = exploration(self.seed, step, self.feed.slots, self.arguments.halt_exploration, max_steps)
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

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Everything that a step changes, {part: {name: tensor}}, on its device and not copied."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimisers": optimiser_state(self.model, self.optimisers),
            "slots": self.slots.state_dict(),
        }

    def load_state_dict(self, saved: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take over what `state_dict` gave; slots that were not saved begin anew.

        Raises:
            ValueError, RuntimeError: tensors of another model or batch, naming one.
        """
        self.model.load_state_dict(saved["model"])
        self.ema.load_state_dict(saved["ema"])
        load_optimiser_state(self.model, self.optimisers, saved["optimisers"])
        if "slots" in saved:
            self.slots.load_state_dict(saved["slots"])

    def lr_factor(self, step: int) -> float:
        """What the recipe's rates are multiplied with at the run's step `step`."""
        arguments = self.arguments
        return lr_factor(
            step,
            warmup_steps=arguments.warmup_steps,
            total_steps=self.train_steps,
            kind=arguments.lr_schedule,
            min_ratio=arguments.lr_min_ratio,
            decay_share=arguments.lr_decay_share,
            start_step=arguments.start_step,
        )

    def cycles(self, step: int) -> tuple[int, int] | None:
        """(H_cycles, L_cycles) of the run's step `step`; None for the config's."""
        depths: dict[float, tuple[int, int] | None] = {**self.depths}
        return stage_at(step, self.train_steps, depths, None)

    def max_steps(self, step: int) -> int:
        """The supervision steps after which a puzzle is released at the run's step `step`."""
        return stage_at(step, self.train_steps, self.limits, self.model.config.halt_max_steps)

    def _refill(self, step: int) -> Tensor:
        """Give released slots new puzzles; [B], of which of them this is the only step: they began near their end."""
        slots = self.slots
        inputs, labels, puzzle_ids = self.feed(step)
        fresh, once = self.perturbation.start(step), torch.zeros_like(slots.released)
        if self.arguments.corrupted_share:
            corrupted, z_H = self.perturbation.corrupted(step, labels, puzzle_ids)
            fresh, once = (
                fresh.replaced(z_H=z_H.to(fresh.z_H.dtype)).where(corrupted, fresh),
                slots.released & corrupted,
            )
        slots.refill(inputs, labels, puzzle_ids, fresh)
        return once

    def _forward_backward(self, step: int) -> Outcome:
        """The gradient of the batch's mean loss, in `gradient_accumulation` parts."""
        size = -(-len(self.slots.steps) // self.arguments.gradient_accumulation)
        *parts, last = (slice(start, start + size) for start in range(0, len(self.slots.steps), size))
        outcomes = []
        for rows in parts:
            with self.accelerator.no_sync(self.wrapped):
                outcomes.append(self._part(step, rows))
        outcomes.append(self._part(step, last))
        return Outcome.join(outcomes)

    def _part(self, step: int, rows: slice) -> Outcome:
        slots = self.slots
        out = self.wrapped(
            slots.inputs[rows],
            puzzle_ids=slots.puzzle_ids[rows],
            state=slots.state.select(rows),
            cycles=self.cycles(step),
        )
        labels = self._labels(rows)
        with torch.no_grad():
            exact, right = is_exact(out.logits, labels), (out.logits.argmax(-1) == labels).sum(-1)
        targets = labels
        if self.path is not None:
            targets = self.path.targets(step, rows, slots.inputs[rows], labels, self.slots_begun)
        token_loss = self.token_loss(out.logits, targets, self.arguments.label_smoothing)
        halt_loss = halting_loss(out.halt_logits, exact)
        weighted = self.weights[slots.steps[rows]] * token_loss
        loss = (weighted + self.arguments.halt_loss_weight * halt_loss).sum() / len(slots.steps)
        self.accelerator.backward(loss)
        cells = (labels != IGNORE_INDEX).sum(-1)
        losses = token_loss.detach().float(), halt_loss.detach()
        return Outcome(*losses, exact, out.halt_logits.detach() > 0, cells, right, out.state)

    def _labels(self, rows: slice) -> Tensor:
        """The labels [b, L] but for the cells that are not trained: padding and, if the recipe says so, the givens."""
        inputs, labels = self.slots.inputs[rows], self.slots.labels[rows]
        labels = labels.masked_fill(labels.eq(PAD_ID), IGNORE_INDEX)
        if self.arguments.loss_on == "blanks":
            labels = labels.masked_fill(inputs.ne(self.model.config.blank_token_id), IGNORE_INDEX)
        return labels

    def _update(self, step: int) -> None:
        arguments = self.arguments
        self._average_table_gradient()
        if arguments.clip_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.core, arguments.clip_grad_norm)
        set_lr(self.optimisers, self.lr_factor(step))
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
        # PyTorch warns unless it is told whether to check the indices, which are right by construction.
        table.weight.grad = torch.sparse_coo_tensor(rows[None], values / processes, grad.shape, check_invariants=False)
