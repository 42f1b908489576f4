"""One optimiser step: refill the slots, one supervision step forward and back, update, release what is finished.

Source: arXiv 2510.04871, section 2 and the public code's pretrain.py. Shapes: b slots of one part of a bucket
(gradient accumulation), L cells.
"""

from collections.abc import Mapping
from contextlib import nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import Optimizer

from ..configuration_trm import TRMConfig
from ..losses_trm import IGNORE_INDEX, TOKEN_LOSSES, halting_loss, is_exact
from ..modeling_trm import TRMForGridReasoning
from .arguments import OptimisationArguments
from .bucket import Bucket, Outcome
from .ema import ExponentialMovingAverage
from .optimiser_state import load_optimiser_state, optimiser_state
from .optimisers import core_parameters
from .perturbation import PAD_ID
from .schedule import lr_factor, set_lr, stage_at, step_weights
from .slots import Slots


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
        buckets: this process's share of the batch, one for each size of grids, the model's own first.
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
        buckets: list[Bucket],
        train_steps: int,
    ) -> None:
        self.train_steps, self.slots_begun = train_steps, 0
        self.arguments, self.accelerator, self.model, self.wrapped = arguments, accelerator, model, wrapped
        self.optimisers, self.ema, self.buckets = optimisers, ema, buckets
        self.core = list(core_parameters(model).values())
        self.token_loss = TOKEN_LOSSES[arguments.token_loss]
        self.depths, self.limits = arguments.depth_stages(), arguments.supervision_stages()
        check_stages(arguments, model.config)
        weights = step_weights(arguments.step_weights, model.config.halt_max_steps)
        self.weights = torch.tensor(weights, device=model.device)

    def __call__(self, step: int) -> dict[str, Tensor]:
        """Sums over this process's slots, scalars on the device: nothing here waits for it."""
        once = [bucket.begin(step) for bucket in self.buckets]
        outcomes = self._forward_backward(step)
        self._update(step)
        max_steps = self.max_steps(step)
        tallies = [
            bucket.end(step, outcome, only, max_steps) for bucket, outcome, only in zip(self.buckets, outcomes, once)
        ]
        return {name: torch.stack([tally[name] for tally in tallies]).sum(0) for name in tallies[0]}

    def close(self) -> None:
        """No further step is asked for."""
        for bucket in self.buckets:
            bucket.feed.close()

    def state_dict(self) -> dict[str, dict[str, Tensor]]:
        """Everything that a step changes, {part: {name: tensor}}, on its device and not copied."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimisers": optimiser_state(self.model, self.optimisers),
            "slots": {
                prefix + name: value
                for prefix, bucket in self._by_prefix()
                for name, value in bucket.slots.state_dict().items()
            },
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
            for prefix, bucket in self._by_prefix():
                bucket.slots.load_state_dict(saved["slots"], prefix)

    def _by_prefix(self) -> list[tuple[str, Bucket]]:
        """Before the names of what a checkpoint holds of the other sizes stands the number of their cells."""
        own, *others = self.buckets
        return [("", own), *((f"{bucket.slots.inputs.shape[1]}.", bucket) for bucket in others)]

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

    def _forward_backward(self, step: int) -> list[Outcome]:
        """The gradient of the whole batch's mean loss, part by part; what became of each bucket."""
        parts = [(bucket, rows) for bucket in self.buckets for rows in bucket.parts()]
        outcomes: dict[Bucket, list[Outcome]] = {bucket: [] for bucket in self.buckets}
        for number, (bucket, rows) in enumerate(parts, start=1):
            with nullcontext() if number == len(parts) else self.accelerator.no_sync(self.wrapped):
                outcomes[bucket].append(self._part(step, bucket, rows))
        return [Outcome.join(ended) for ended in outcomes.values()]

    def _part(self, step: int, bucket: Bucket, rows: slice) -> Outcome:
        slots = bucket.slots
        out = self.wrapped(
            slots.inputs[rows],
            puzzle_ids=slots.puzzle_ids[rows],
            state=slots.state.select(rows),
            cycles=self.cycles(step),
        )
        labels = self._labels(slots, rows)
        with torch.no_grad():
            exact, right = is_exact(out.logits, labels), (out.logits.argmax(-1) == labels).sum(-1)
        targets = labels
        if bucket.path is not None:
            targets = bucket.path.targets(step, rows, slots.inputs[rows], labels, self.slots_begun)
        token_loss = self.token_loss(out.logits, targets, self.arguments.label_smoothing)
        halt_loss = halting_loss(out.halt_logits, exact)
        weighted = self.weights[slots.steps[rows]] * token_loss
        loss = (weighted + self.arguments.halt_loss_weight * halt_loss).sum() / sum(map(len, self.buckets))
        self.accelerator.backward(loss)
        cells = (labels != IGNORE_INDEX).sum(-1)
        losses = token_loss.detach().float(), halt_loss.detach()
        return Outcome(*losses, exact, out.halt_logits.detach() > 0, cells, right, out.state)

    def _labels(self, slots: Slots, rows: slice) -> Tensor:
        """The labels [b, L] but for the cells that are not trained: padding and, if the recipe says so, the givens."""
        inputs, labels = slots.inputs[rows], slots.labels[rows]
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
