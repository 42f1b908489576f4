"""Operator "axial": a cell sees the cells of its row, of its column and of its box, each by attention heads of its own.

Sources: axial attention, arXiv 1912.12180 (along rows and columns; there one after the other, here side by side);
messages among the cells of a Sudoku's rows, columns and boxes, arXiv 1711.08028. No weight belongs to a place, and
nothing tells places apart but the lines they share: the operator holds for grids of every size, and permuting the rows
of a band, or the bands, permutes what it returns.

Shapes: B batch, L = prefix + cells positions, D hidden, H rows, W columns, N lines of C cells, E channels.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_trm import TRMConfig
from .layers_trm import Operator


class Axial(Operator):
    """y = out(attention along each of axial_lines, side by side): [B, L, D] -> [B, L, D].

    Each kind of line has axial_heads heads of axial_head_dim channels. The prefix has no place in the grid: there y is
    zero.
    """

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.config = config
        width = len(config.axial_lines) * config.axial_heads * config.axial_head_dim
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * width, bias=False)
        self.o_proj = nn.Linear(width, config.hidden_size, bias=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        prefix, cells = self.config.puzzle_prefix_len, x_BLD.shape[1] - self.config.puzzle_prefix_len
        shape = self.config.grid_shape(cells)
        qkv_BHWE = self.qkv_proj(x_BLD[:, prefix:]).unflatten(1, shape)
        parts = qkv_BHWE.chunk(len(self.config.axial_lines), dim=-1)
        seen = [self._attend(part, kind) for part, kind in zip(parts, self.config.axial_lines)]
        return F.pad(self.o_proj(torch.cat(seen, dim=-1).flatten(1, 2)), (0, 0, prefix, 0))

    def _attend(self, qkv_BHWE: Tensor, kind: str) -> Tensor:
        """[B, H, W, 3 * heads * head_dim] -> a third of it. PyTorch's own kernels gain nothing for lines so short."""
        shape, heads = (qkv_BHWE.shape[1], qkv_BHWE.shape[2]), self.config.axial_heads
        q, k, v = (
            _lines(qkv_BHWE, kind).unflatten(-1, (3, heads, -1)).permute(3, 0, 1, 4, 2, 5).unbind(0)
        )  # [B, N, heads, C, E]
        weights = ((q * self.config.axial_head_dim**-0.5) @ k.mT).softmax(-1).to(v.dtype)
        return _grid((weights @ v).transpose(2, 3).flatten(3), kind, shape)


def _lines(grid_BHWE: Tensor, kind: str) -> Tensor:
    """The cells line by line, [B, N, C, E]."""
    if kind == "rows":
        return grid_BHWE
    if kind == "columns":
        return grid_BHWE.transpose(1, 2)
    high, wide = map(math.isqrt, grid_BHWE.shape[1:3])
    return grid_BHWE.unflatten(2, (wide, wide)).unflatten(1, (high, high)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _grid(lines_BNCE: Tensor, kind: str, shape: tuple[int, int]) -> Tensor:
    """The way back, [B, H, W, E]."""
    if kind == "rows":
        return lines_BNCE
    if kind == "columns":
        return lines_BNCE.transpose(1, 2)
    high, wide = map(math.isqrt, shape)
    return lines_BNCE.unflatten(2, (high, wide)).unflatten(1, (high, wide)).transpose(2, 3).flatten(3, 4).flatten(1, 2)
