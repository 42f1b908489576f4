"""Operator "conv2d": a gated depthwise convolution over the rows and columns of the grid.

Sources: gated convolutions, arXiv 1612.08083; a recurrent convolution that sees its input at every pass learns mazes
and solves larger ones than it was trained on, arXiv 2202.05826. Its weights are those of a neighbourhood, so they hold
for grids of every size.

Shapes: B batch, L = prefix + cells positions, D hidden, H rows, W columns.
"""

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
        mixed_BLD = self.out_proj(F.silu(gate) * self.conv(value_BDHW).flatten(2).mT)
        return torch.cat((mixed_BLD.new_zeros(x_BLD[:, :prefix].shape), mixed_BLD), dim=1) if prefix else mixed_BLD
