"""Operator "conv2d": a gated depthwise convolution over the rows and columns of the grid.

Sources: gated convolutions, arXiv 1612.08083; a recurrent convolution that sees its input at every pass learns mazes
and solves larger ones than it was trained on, arXiv 2202.05826. Its weights are those of a neighbourhood, so they hold
for grids of every size.

Shapes: B batch, L = prefix + cells positions, D hidden, H rows, W columns.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_trm import TRMConfig
from .layers_trm import Operator, truncated_normal_


class Conv2d(Operator):
    """y = out(silu(g) * conv(v)), [g, v] = in(x): [B, L, D] -> [B, L, D].

    Each channel of v sees the conv2d_kernel x conv2d_kernel cells around its own, nothing beyond the grid's edge. The
    prefix has no place in the grid: there y is zero.
    """

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.config, width, kernel = config, config.hidden_size, config.conv2d_kernel
        self.in_proj = nn.Linear(width, 2 * width, bias=False)
        self.conv = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
        self.out_proj = nn.Linear(width, width, bias=False)

    def init_parameters(self) -> None:
        truncated_normal_(self.conv.weight, std=1 / self.config.conv2d_kernel)  # of k * k inputs, as of any layer

    def forward(self, x_BLD: Tensor) -> Tensor:
        prefix, cells = self.config.puzzle_prefix_len, x_BLD.shape[1] - self.config.puzzle_prefix_len
        gate, value = self.in_proj(x_BLD[:, prefix:]).chunk(2, dim=-1)
        value_BDHW = value.mT.unflatten(-1, self.config.grid_shape(cells))
        mixed_BLD = self.out_proj(F.silu(gate) * self._convolved(value_BDHW).flatten(2).mT)
        return F.pad(mixed_BLD, (0, 0, prefix, 0))

    def _convolved(self, value_BDHW: Tensor) -> Tensor:
        trains_in_bfloat16 = value_BDHW.dtype is torch.bfloat16 and torch.is_grad_enabled()
        if value_BDHW.device.type == "cpu" and trains_in_bfloat16:
            return _DepthwiseConv.apply(value_BDHW, self.conv.weight.to(value_BDHW.dtype))
        return self.conv(value_BDHW)


class _DepthwiseConv(torch.autograd.Function):
    """F.conv2d of each channel by itself, with a weight gradient that is faster on a CPU.

    PyTorch's takes 54 ms in bfloat16 of [16, 96, 30, 30] with a 5 x 5 kernel, where all else takes 2 ms; the sums below
    take 20 ms, compiled 4 (one thread of an AMD EPYC, family 25, model 17).
    """

    @staticmethod
    def forward(ctx: Any, x_BDHW: Tensor, weight_D1KK: Tensor) -> Tensor:
        ctx.save_for_backward(x_BDHW, weight_D1KK)
        return F.conv2d(x_BDHW, weight_D1KK, padding=weight_D1KK.shape[-1] // 2, groups=len(weight_D1KK))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (grad_BDHW,) = gradients
        x_BDHW, weight_D1KK = ctx.saved_tensors
        (H, W), K = grad_BDHW.shape[-2:], weight_D1KK.shape[-1]
        grad_x = F.conv2d(grad_BDHW, weight_D1KK.flip(2, 3), padding=K // 2, groups=len(weight_D1KK))
        seen = F.pad(x_BDHW, (K // 2,) * 4)
        taps = [
            (seen[..., i : i + H, j : j + W] * grad_BDHW).sum((0, 2, 3), dtype=torch.float32)
            for i in range(K)
            for j in range(K)
        ]
        return grad_x, torch.stack(taps, dim=-1).view(weight_D1KK.shape).to(weight_D1KK.dtype)
