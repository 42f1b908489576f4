"""The recursion: one small stack, applied to its own latent states. Source: arXiv 2510.04871, section 4, figure 3.

The stack is any function [B, L, D] -> [B, L, D], of a model with symbol fields [B, K, L, D] -> [B, K, L, D]; nothing
here knows which operators it is made of.

Glossary (paper = ours): y = z_H, latent of the current answer; z = z_L, scratch latent; x = the embedded puzzle.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class RecursionState(NamedTuple):
    """What is carried between supervision steps.

    z_H, z_L: the latents, [B, (K,) L, D] each; z_L is None for a model with a single latent. answers: token ids [B, L]
    of the step before, for a model that reads them (config.answer_feedback). steps: int64 [B] taken so far, for a model
    that is told (config.num_step_embeddings) or that reads its answers.
    """

    z_H: Tensor
    z_L: Tensor | None
    answers: Tensor | None = None
    steps: Tensor | None = None

    def replaced(self, **fields: Tensor | None) -> "RecursionState":
        """With other fields. (torch.compile of torch 2.11 cannot trace NamedTuple's own _replace.)"""
        return RecursionState(*(fields.get(name, value) for name, value in zip(self._fields, self)))  # type: ignore[arg-type]

    def map(self, function: Callable[[Tensor], Tensor]) -> "RecursionState":
        """The function of each latent."""
        return self.replaced(z_H=function(self.z_H), z_L=None if self.z_L is None else function(self.z_L))

    def detach(self) -> "RecursionState":
        return self.map(Tensor.detach)

    def select(self, index: Tensor | slice) -> "RecursionState":
        """The batch rows `index` (a boolean mask [B], row numbers or a slice)."""
        return RecursionState(*(None if field is None else field[index] for field in self))  # type: ignore[arg-type]

    def damped(self, before: "RecursionState", share: float) -> "RecursionState":
        """These latents with a share of those before; itself for a share of 0."""
        if not share:
            return self
        z_L = None if self.z_L is None or before.z_L is None else self.z_L.lerp(before.z_L.to(self.z_L.dtype), share)
        return self.replaced(z_H=self.z_H.lerp(before.z_H.to(self.z_H.dtype), share), z_L=z_L)

    def carries_as_much_as(self, other: "RecursionState") -> bool:
        return all(ours is not None or theirs is None for ours, theirs in zip(self, other))

    @staticmethod
    def join(parts: Sequence["RecursionState"]) -> "RecursionState":
        """The batches of several states as one."""
        fields = ([field for field in fields if field is not None] for fields in zip(*parts))
        return RecursionState(*(torch.cat(present) if present else None for present in fields))  # type: ignore[arg-type]

    def where(self, mask_B: Tensor, other: "RecursionState") -> "RecursionState":
        """This state's rows where the mask holds, the other's elsewhere."""

        def choose(ours: Tensor | None, theirs: Tensor | None) -> Tensor | None:
            if ours is None or theirs is None:
                return None
            return torch.where(mask_B.view(-1, *(1,) * (ours.ndim - 1)), ours, theirs)

        return RecursionState(*map(choose, self, other))  # type: ignore[arg-type]


def cycle(stack: Callable[[Tensor], Tensor], state: RecursionState, x: Tensor, L_cycles: int) -> RecursionState:
    """L_cycles updates of the scratch latent, then one of the answer; with a single latent, L_cycles updates of it."""
    z_H, z_L = state.z_H, state.z_L
    if z_L is None:
        for _ in range(L_cycles):
            z_H = stack(z_H + x)
        return state.replaced(z_H=z_H)
    for _ in range(L_cycles):
        z_L = stack(z_L + z_H + x)
    return state.replaced(z_H=stack(z_H + z_L), z_L=z_L)


def recurse(
    stack: Callable[[Tensor], Tensor], state: RecursionState, x: Tensor, H_cycles: int, L_cycles: int
) -> RecursionState:
    """One supervision step: H_cycles cycles, only the last of them with gradient.

    Raises:
        ValueError: fewer cycles than one of either kind, unless torch.compile traces.

    autocast keeps the bf16 copies of the weights. They must be neither those from before an optimiser step nor, in the
    last cycle, those made without gradient, which have no history: hence the two clearings.
    """
    if not torch.compiler.is_compiling() and min(H_cycles, L_cycles) < 1:
        raise ValueError(f"cycles H_cycles={H_cycles}, L_cycles={L_cycles}; allowed: 1 or more of each")
    _clear_autocast_cache()
    with torch.no_grad():
        for _ in range(H_cycles - 1):
            state = cycle(stack, state, x, L_cycles)
    _clear_autocast_cache()
    return cycle(stack, state, x, L_cycles)


def _clear_autocast_cache() -> None:
    """Not while torch.compile traces: it keeps no copies, and would break its graph here (torch 2.11 would stop)."""
    if not torch.compiler.is_compiling():
        torch.clear_autocast_cache()
