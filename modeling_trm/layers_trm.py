"""Small layers that the operators share: RMSNorm without weight, rotary embedding, initialisation.

Shapes: B batch, L positions, D hidden, H heads, P head size. Source: arXiv 2510.04871, models/layers.py.
"""

import math

import torch
from torch import Tensor, nn
from transformers import initialization as init

# Standard deviation of a unit normal truncated at two standard deviations; dividing by it restores the wanted one.
TRUNCATED_STD = 0.87962566103423978


class Operator(nn.Module):
    """A sublayer of the stack: `forward(x_BLD) -> x_BLD`, stateless, wrapped as h = rms_norm(h + operator(h)).

    `forward` asks no flag of torch.compiler which path to take: torch 2.9 to 2.12 trace `is_exporting()` as True inside
    torch.compile. What wants other kernels says so in the config (see kernels_trm).

    A class may have `packed(self, dtype, linear)`: a function called like `forward` that computes the same on a CPU,
    its matrices in layers that `linear(weight, bias)` packs, its products of activations in `dtype` (see
    packed_linear_trm). Without one of its own the packed engines run its `forward` over packed linear layers.

    `norm_dim` is the axis of that post-norm: -1 (channels), or -2 (positions) for an operator that mixes positions
    on the transposed tensor, as the reference's MLP-t does.

    `mixes_fields`: of a model with symbol fields it takes all of them at once, `forward(x_BKLD) -> x_BKLD`; else each
    field is a sequence of the batch. `reads_in_order`: it takes cell after cell, in the config's `scan_orders`.
    `fixes_length`: it has weights for each position, so that grids of another size are none of its own.
    """

    norm_dim: int = -1
    mixes_fields: bool = False
    reads_in_order: bool = False
    fixes_length: bool = False

    def init_parameters(self) -> None:
        """Fill the parameters that are not in a Linear, through transformers.initialization (loaded ones are kept)."""

    def prepare(self, x_BLD: Tensor) -> tuple[Tensor, ...]:
        """What `forward` takes after x, computed once a supervision step and outside of a compiled stack.

        It may depend on the shape, type and device of x, which stands for every input of that step, not on its values.
        """
        return ()


def autocast_dtype(device: str) -> torch.dtype | None:
    """What autocast computes in on devices of this type; None where it is off, or unknown as of "meta"."""
    # torch.amp.is_autocast_available would ask of every type, but torch.compile of torch 2.9 cannot trace it.
    is_on = device != "meta" and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if is_on else None


def rms_norm(x: Tensor, eps: float, dim: int = -1) -> Tensor:
    """x / rms(x) over `dim`, without weight; computed in float32 at least, returned in x's dtype."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * torch.rsqrt(wide.square().mean(dim, keepdim=True) + eps)).to(x.dtype)


def rms_norm_over(x: Tensor, eps: float, dim: int = -1) -> Tensor:
    """rms_norm of float32 or narrower in fewer passes on a CPU, without gradient: an x in float32 is written over."""
    wide = x.float()
    if dim == -1:
        squares = torch.linalg.vector_norm(wide, dim=dim, keepdim=True).square_()
    else:  # over positions it is not vectorised, nor is mean()
        squares = (wide * wide).sum(dim, keepdim=True)
    return wide.mul_(squares.div_(x.shape[dim]).add_(eps).rsqrt_()).to(x.dtype)


class RMSNorm(nn.Module):
    """rms_norm(x) * weight over the last axis; the weight starts where its operator says."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.eps) * self.weight.to(x.dtype)


def truncated_normal_(tensor: Tensor, std: float) -> Tensor:
    """Truncated at two standard deviations; `std` is the standard deviation *after* that (JAX's lecun_normal)."""
    wide = std / TRUNCATED_STD
    return init.trunc_normal_(tensor, mean=0.0, std=wide, a=-2 * wide, b=2 * wide)


def rotary_tables(length: int, head_dim: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin [L, P] of RoPE (arXiv 2104.09864), halves repeated; on `like`'s device, in float32 at least.

    No buffers: those that are not saved come back as garbage from transformers' meta-device loading, and a model's
    change of precision would round them.
    """
    dtype, device = torch.promote_types(like.dtype, torch.float32), like.device
    angles = _angles(torch.arange(length, dtype=dtype, device=device), head_dim, theta).repeat(1, 2)
    return angles.cos(), angles.sin()


def rotary_tables_2d(
    prefix: int, grid_shape: tuple[int, int], head_dim: int, theta: float, like: Tensor
) -> tuple[Tensor, Tensor]:
    """As rotary_tables for L = prefix + cells: half of the pairs turn by the row, half by the column.

    Source: arXiv 2603.02193.
    """
    halves = [_angles(place_L, head_dim // 2, theta) for place_L in rows_and_columns(prefix, grid_shape, like)]
    angles = torch.cat(halves, dim=1).repeat(1, 2)
    return angles.cos(), angles.sin()


def sincos_table_2d(prefix: int, grid_shape: tuple[int, int], width: int, theta: float, like: Tensor) -> Tensor:
    """[L, width]: sin and cos of the row, then of the column, a quarter each, times sqrt(2): of mean square 1.

    Source: arXiv 2111.06377, public code. Deviation: rows and columns are counted in boxes, sqrt(height) rows and
    sqrt(width) columns of the grid, and the shortest wave is a box long, so that a cell of a box enters alike in
    Sudokus of every size.
    """
    places = rows_and_columns(prefix, grid_shape, like)
    turns = [2 * math.pi * place_L / math.sqrt(lines) for place_L, lines in zip(places, grid_shape)]
    angles = [_angles(turn_L, width // 2, theta) for turn_L in turns]
    return math.sqrt(2) * torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)


def rows_and_columns(prefix: int, grid_shape: tuple[int, int], like: Tensor) -> list[Tensor]:
    """Row and column of each of L = prefix + cells positions; the prefix goes up and left from the grid's corner."""
    dtype, device = torch.promote_types(like.dtype, torch.float32), like.device
    before = torch.arange(-prefix, 0, dtype=dtype, device=device)
    places = torch.meshgrid(*(torch.arange(n, dtype=dtype, device=device) for n in grid_shape), indexing="ij")
    return [torch.cat((before, place.flatten())) for place in places]


def _angles(places_L: Tensor, size: int, theta: float) -> Tensor:
    """[L, size / 2]: the place times theta^(-2p / size)."""
    exponents = torch.arange(0, size, 2, dtype=places_L.dtype, device=places_L.device) / size
    return torch.outer(places_L, theta**-exponents)


def apply_rotary(x_BHLP: Tensor, cos_LP: Tensor, sin_LP: Tensor) -> Tensor:
    """Rotate the pairs (p, p + P/2) of every head by the position's angle; in float32 at least, back in x's dtype."""
    x = x_BHLP.to(torch.promote_types(x_BHLP.dtype, torch.float32))
    first, second = x.chunk(2, dim=-1)
    rotated = torch.cat((-second, first), dim=-1)
    return (x * cos_LP + rotated * sin_LP).to(x_BHLP.dtype)
