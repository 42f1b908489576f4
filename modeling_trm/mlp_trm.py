"""Operators "mlp" (mixes channels) and "mlp_t" (mixes positions). Source: arXiv 2510.04871, section 4.5.

Shapes: B batch, L positions, D hidden, F inner width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_trm import TRMConfig
from .layers_trm import Operator, rms_norm


class GatedMLP(Operator):
    """y = down(gate(g, v)), [g, v] = up(x), over the last axis: [..., width] -> [..., width].

    mlp_gate "silu": silu(g) * v (SwiGLU, arXiv 2002.05202). mlp_gate "normalized": sigmoid(g) * rms_norm(g * v), which
    keeps the inner activations at unit scale over the recursion (arXiv 2601.19085).
    """

    def __init__(self, config: TRMConfig, width: int) -> None:
        super().__init__()
        inner = config.inner_width(width)
        self.gate, self.eps = config.mlp_gate, config.rms_norm_eps
        self.gate_bias_start = 0.0 if config.mlp_gate_bias is None else float(config.mlp_gate_bias)
        self.gate_up_proj = nn.Linear(width, 2 * inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)
        self.gate_bias = None if config.mlp_gate_bias is None else nn.Parameter(torch.empty(inner))

    def init_parameters(self) -> None:
        if self.gate_bias is not None:
            init.constant_(self.gate_bias, self.gate_bias_start)

    def forward(self, x: Tensor) -> Tensor:
        g, v = self.gate_up_proj(x).chunk(2, dim=-1)
        if self.gate_bias is not None:
            g = g + self.gate_bias.to(g.dtype)
        if self.gate == "silu":
            return self.down_proj(F.silu(g) * v)
        return self.down_proj(torch.sigmoid(g) * rms_norm(g * v, self.eps))


class Mlp(GatedMLP):
    """A gated MLP over the channels of each position."""

    def __init__(self, config: TRMConfig) -> None:
        super().__init__(config, config.hidden_size)


class MlpT(GatedMLP):
    """A gated MLP over the positions of each channel, so its weights fix the sequence length.

    The reference normalises the transposed tensor, so its post-norm runs over positions: norm_dim = -2.
    """

    def __init__(self, config: TRMConfig) -> None:
        super().__init__(config, config.num_positions)
        self.norm_dim = -2 if config.mlp_t_norm == "positions" else -1

    def forward(self, x_BLD: Tensor) -> Tensor:
        return super().forward(x_BLD.transpose(-1, -2)).transpose(-1, -2)
