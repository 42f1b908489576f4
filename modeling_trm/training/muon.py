"""Muon in few launches: torch.optim.Muon's update of many matrices at once instead of one by one.

Sources: https://kellerjordan.github.io/posts/muon; torch/optim/_muon.py of PyTorch, whose arithmetic, constants and
name of the state ("momentum_buffer") these are, so that its checkpoints go on here.

Shapes: B matrices of a batch, N <= M their sides.
"""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from .optimiser_basics import GroupOptimiser, require_non_negative

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
EPS = 1e-7  # of the norm that a matrix is divided by


class Muon(GroupOptimiser):
    """torch.optim.Muon(nesterov=True, adjust_lr_fn="original") in foreach operations and batched products.

        m <- b m + (1 - b) g          u = (1 - b) g + b m          O = u with all singular values near 1
        W <- (1 - lr weight_decay) W - lr sqrt(max(1, rows / columns)) O

    On a CPU a batch has matrices of one shape, and weights in float32 or float64 are torch.optim.Muon's bit for bit. On
    a GPU, where launches cost more than multiplying zeros, it has all of one shorter side, padded; sums in another
    order then round otherwise in bfloat16.

    Args:
        params: matrices or groups of them; dense gradients only. What has no gradient stays as it is.
        lr: learning rate. weight_decay: decoupled, multiplied by lr. momentum: b.
        ns_steps: Newton-Schulz iterations.

    Raises:
        ValueError: a negative setting, naming it, or a parameter that is no matrix, with its shape.
    """

    def __init__(
        self, params: ParamsT, lr: float = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95, ns_steps: int = 5
    ) -> None:
        settings = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "ns_steps": ns_steps}
        require_non_negative(**settings)
        super().__init__(params, settings)
        for param in (p for group in self.param_groups for p in group["params"]):
            if param.ndim != 2:
                raise ValueError(
                    f"Muon is for matrices, but a parameter has shape {list(param.shape)}: give it to another optimiser"
                )

    def _step_group(self, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        grads: list[Tensor] = [p.grad for p in params]
        momenta = [self._momentum(p) for p in params]
        lr, momentum = group["lr"], group["momentum"]
        torch._foreach_lerp_(momenta, grads, 1 - momentum)
        updates = torch._foreach_lerp(grads, momenta, momentum)
        torch._foreach_mul_(params, 1 - lr * group["weight_decay"])
        for numbers in _batches(params):
            for number, update in zip(numbers, orthogonalise([updates[i] for i in numbers], group["ns_steps"])):
                rows, columns = update.shape
                params[number].add_(update, alpha=-lr * math.sqrt(max(1, rows / columns)))

    def _momentum(self, param: Tensor) -> Tensor:
        state = self.state[param]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(param)
        return state["momentum_buffer"]


def _batches(params: list[Tensor]) -> list[list[int]]:
    """The numbers of the matrices that are orthogonalised together: see Muon."""
    batches: dict[Hashable, list[int]] = {}
    for number, param in enumerate(params):
        alike = param.shape if param.device.type == "cpu" else min(param.shape)
        batches.setdefault((param.device, alike), []).append(number)
    return list(batches.values())


def orthogonalise(matrices: Sequence[Tensor], steps: int) -> list[Tensor]:
    """Matrices U S V^T of one shorter side with their singular values moved to about 1, as one batch in bfloat16.

        A = X X^T          X <- a X + (b A + c A^2) X          from X = matrix / |matrix|, turned to N <= M

    Returns:
        bfloat16 matrices of the same shapes, views of the batch.
    """
    a, b, c = COEFFICIENTS
    x_BNM = _batch(matrices)
    x_BNM.div_(torch.linalg.vector_norm(x_BNM, dim=(1, 2), keepdim=True).clamp(min=EPS))
    for _ in range(steps):
        gram_BNN = torch.bmm(x_BNM, x_BNM.mT)
        factor_BNN = torch.baddbmm(gram_BNN, gram_BNN, gram_BNN, beta=b, alpha=c)
        x_BNM = torch.baddbmm(_contiguous(x_BNM), factor_BNN, x_BNM, beta=a)
    return [_turned(x_NM[:, : max(m.shape)], _is_tall(m)) for x_NM, m in zip(x_BNM, matrices)]


def _batch(matrices: Sequence[Tensor]) -> Tensor:
    """[B, N, M] in bfloat16, with zeros behind the matrices of smaller M: the iteration leaves them zeros.

    Where all are tall it is stored as they are, which copies straight, and products round as for a single one.
    """
    wide, all_tall = [_turned(m, _is_tall(m)) for m in matrices], all(map(_is_tall, matrices))
    n, widths = len(wide[0]), [x_NM.shape[1] for x_NM in wide]
    new = wide[0].new_empty if min(widths) == max(widths) else wide[0].new_zeros
    sides = (max(widths), n) if all_tall else (n, max(widths))
    batch_BNM = _turned(new((len(wide), *sides), dtype=torch.bfloat16), all_tall)
    torch._foreach_copy_([x_NM[:, :width] for x_NM, width in zip(batch_BNM, widths)], wide)
    return batch_BNM


def _contiguous(batch_BNM: Tensor) -> Tensor:
    """Matrix by matrix, which PyTorch turns in a third of the time that it takes for a batch on a CPU."""
    if batch_BNM.is_contiguous():
        return batch_BNM
    copy_BNM = batch_BNM.new_empty(batch_BNM.shape)
    torch._foreach_copy_(list(copy_BNM), list(batch_BNM))
    return copy_BNM


def _is_tall(matrix: Tensor) -> bool:
    return matrix.shape[0] > matrix.shape[1]


def _turned(matrix: Tensor, turn: bool) -> Tensor:
    return matrix.mT if turn else matrix
