"""Operator "mamba3": the Mamba-3 mixer, one input and one output a head (SISO; arXiv 2603.15569), in plain PyTorch.

Parameter names, shapes and initialisation are those of mamba_ssm.modules.mamba3.Mamba3 (2.3), so weights move freely.
There is no convolution: the trapezoid rule sees the position before. The state is complex, as a rotation of B and C by
an angle that the input drives and that adds up over the positions.

Shapes: B batch, L positions, H heads, P head size, G groups, N state, R pairs of the state that are turned.
Paper's letters: A_t decay rate, dt_t step size, lambda_t share of the new position in the trapezoid rule, D skip.
    h_t = a_t h_{t-1} + (1 - lambda_t) dt_t a_t B_{t-1} x_{t-1}^T + lambda_t dt_t B_t x_t^T,     a_t = exp(dt_t A_t)
    y_t = C_t h_t + D x_t
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_trm import TRMConfig
from .layers_trm import Operator, RMSNorm
from .mamba2_trm import draw_dt_bias, running_sum, scale, ssd
from .packed_linear_trm import Layer, PackedLinear, with_children, with_packed_linears

SLOWEST_DECAY = 1e-4  # mamba_ssm's A_floor


class Mamba3(Operator):
    """in_proj -> rotated, biased B and C -> recurrence -> gate -> out_proj; unidirectional in raster order."""

    reads_in_order = True

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.n_heads, self.n_groups = config.mamba_n_heads, config.mamba_n_groups
        inner, states = config.mamba_d_inner, config.mamba_n_groups * config.mamba_d_state
        # of z, x, B, C, dt, A, lambda and the angles
        self.widths = [inner, inner, states, states, *3 * [self.n_heads], config.mamba_n_angles]
        self.in_proj = nn.Linear(config.hidden_size, sum(self.widths), bias=False)
        self.dt_bias = nn.Parameter(torch.empty(self.n_heads))
        self.B_bias = nn.Parameter(torch.empty(self.n_heads, 1, config.mamba_d_state))  # the 1: mamba_ssm's MIMO rank
        self.C_bias = nn.Parameter(torch.empty(self.n_heads, 1, config.mamba_d_state))
        self.B_norm = RMSNorm(config.mamba_d_state, config.rms_norm_eps)
        self.C_norm = RMSNorm(config.mamba_d_state, config.rms_norm_eps)
        self.D = nn.Parameter(torch.empty(self.n_heads))
        self.out_proj = nn.Linear(inner, config.hidden_size, bias=False)

    def init_parameters(self) -> None:
        """mamba_ssm's: dt log-uniform in [0.001, 0.1], everything else outside of the projections 1."""
        init.copy_(self.dt_bias, draw_dt_bias(self.dt_bias))
        for ones in (self.B_bias, self.C_bias, self.B_norm.weight, self.C_norm.weight, self.D):
            init.ones_(ones)

    def forward(self, x_BLD: Tensor) -> Tensor:
        z, x, B, C, dt, A, share, angles = self.in_proj(x_BLD).split(self.widths, dim=-1)
        # Step sizes, rates and running sums stay in float32 at least: bf16 loses the small steps.
        wide = torch.promote_types(x.dtype, torch.float32)
        dt_BLH = F.softplus(dt.to(wide) + self.dt_bias.to(wide))
        decay_BLH = -F.softplus(A.to(wide)).clamp(min=SLOWEST_DECAY) * dt_BLH
        share_BLH = share.to(wide).sigmoid()
        # What a position adds with the step after it: nothing, of the last one.
        later_BLH = F.pad(((1 - share_BLH) * dt_BLH)[:, 1:], (0, 0, 0, 1))
        turned_BLHR = running_sum(math.pi * angles.to(wide).tanh()[:, :, None] * dt_BLH[..., None], 1)
        B_BLHN = self._turned(self.B_norm(self._groups(B)), self.B_bias, turned_BLHR)
        C_BLHN = self._turned(self.C_norm(self._groups(C)), self.C_bias, turned_BLHR)
        x_BLHP = x.unflatten(-1, (self.n_heads, -1))
        # One decayed sum with both shares of a position, less what it must not see of itself yet.
        y_BLHP = ssd(scale(x_BLHP, share_BLH * dt_BLH + later_BLH), decay_BLH, B_BLHN, C_BLHN)
        itself_BLH = self.D.to(wide) - later_BLH * (B_BLHN * C_BLHN).sum(-1).to(wide)
        y_BLHP = y_BLHP + scale(x_BLHP, itself_BLH)
        return self.out_proj(y_BLHP.flatten(-2) * F.silu(z))

    def _groups(self, x_BLX: Tensor) -> Tensor:
        return x_BLX.unflatten(-1, (self.n_groups, -1))

    def _turned(self, x_BLGN: Tensor, bias_H1N: Tensor, angles_BLHR: Tensor) -> Tensor:
        """Of each head, with its bias; the first R pairs of neighbours (2r, 2r + 1) rotated: [B, L, H, N]."""
        x_BLHN = x_BLGN.repeat_interleave(self.n_heads // self.n_groups, dim=2) + bias_H1N[:, 0].to(x_BLGN.dtype)
        R = angles_BLHR.shape[-1]
        pairs, rest = x_BLHN.split([2 * R, x_BLHN.shape[-1] - 2 * R], dim=-1)
        first, second = pairs.to(angles_BLHR.dtype).unflatten(-1, (R, 2)).unbind(-1)
        cos, sin = angles_BLHR.cos(), angles_BLHR.sin()
        rotated = torch.stack((first * cos - second * sin, first * sin + second * cos), dim=-1).flatten(-2)
        return torch.cat((rotated.to(x_BLHN.dtype), rest), dim=-1)

    def packed(self, dtype: torch.dtype, linear: Layer) -> Callable[[Tensor], Tensor]:
        """The forward, its step sizes, rates and angles never in 8 bits: they add up over all positions."""
        cut = sum(self.widths[:4])
        weight, small = self.in_proj.weight[:cut], self.in_proj.weight[cut:]
        in_proj = SideBySide(linear(weight, None), PackedLinear(small, None, dtype))
        return with_children(with_packed_linears(self, linear), in_proj=in_proj)


class SideBySide(nn.Module):
    """The outputs of two layers of the same input, one after the other."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((self.first(x), self.second(x)), dim=-1)
