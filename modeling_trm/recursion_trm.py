"""The recursion: one small stack, applied to its own latent states. Source: arXiv 2510.04871, section 4, figure 3.

The stack is any function [B, L, D] -> [B, L, D]; nothing here knows which operators it is made of.

Glossary (paper = ours): y = z_H, latent of the current answer; z = z_L, scratch latent; x = the embedded puzzle.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class RecursionState(NamedTuple):
    """The latents carried between supervision steps, [B, L, D] each; z_L is None for a model with a single latent."""

    z_H: Tensor
    z_L: Tensor | None

    def map(self, function: Callable[[Tensor], Tensor]) -> "RecursionState":
        return RecursionState(function(self.z_H), None if self.z_L is None else function(self.z_L))

    def detach(self) -> "RecursionState":
        return self.map(Tensor.detach)

    def select(self, index: Tensor) -> "RecursionState":
        """The batch rows `index` (a boolean mask [B] or row numbers)."""
        return self.map(lambda z: z[index])

    def damped(self, before: "RecursionState", share: float) -> "RecursionState":
        """These latents with a share of those before; itself for a share of 0."""
        if not share:
            return self
        z_L = None if self.z_L is None or before.z_L is None else self.z_L.lerp(before.z_L.to(self.z_L.dtype), share)
        return RecursionState(self.z_H.lerp(before.z_H.to(self.z_H.dtype), share), z_L)

    @staticmethod
    def join(parts: Sequence["RecursionState"]) -> "RecursionState":
        """The batches of several states as one."""
        z_L = [part.z_L for part in parts if part.z_L is not None]
        return RecursionState(torch.cat([part.z_H for part in parts]), torch.cat(z_L) if z_L else None)

    def where(self, mask_B: Tensor, other: "RecursionState") -> "RecursionState":
        """This state's rows where the mask holds, the other's elsewhere."""
        mask = mask_B.view(-1, 1, 1)
        z_L = None if self.z_L is None or other.z_L is None else torch.where(mask, self.z_L, other.z_L)
        return RecursionState(torch.where(mask, self.z_H, other.z_H), z_L)


def cycle(stack: Callable[[Tensor], Tensor], state: RecursionState, x: Tensor, L_cycles: int) -> RecursionState:
    """L_cycles updates of the scratch latent, then one of the answer; with a single latent, L_cycles updates of it."""
    z_H, z_L = state
    if z_L is None:
        for _ in range(L_cycles):
            z_H = stack(z_H + x)
        return RecursionState(z_H, None)
    for _ in range(L_cycles):
        z_L = stack(z_L + z_H + x)
    return RecursionState(stack(z_H + z_L), z_L)


def recurse(
    stack: Callable[[Tensor], Tensor], state: RecursionState, x: Tensor, H_cycles: int, L_cycles: int
) -> RecursionState:
    """One supervision step: H_cycles cycles, only the last of them with gradient.

    autocast keeps the bf16 copies of the weights. They must be neither those from before an optimiser step nor, in the
    last cycle, those made without gradient, which have no history: hence the two clearings.
    """
    torch.clear_autocast_cache()
    with torch.no_grad():
        for _ in range(H_cycles - 1):
            state = cycle(stack, state, x, L_cycles)
    torch.clear_autocast_cache()
    return cycle(stack, state, x, L_cycles)
