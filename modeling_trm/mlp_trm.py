"""Operators "mlp" (mixes channels) and "mlp_t" (mixes positions). Source: arXiv 2510.04871, section 4.5.

Shapes: B batch, L positions, D hidden, F inner width; of a product from the left, M rows out and K rows in.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_trm import TRMConfig
from .layers_trm import Operator, autocast_dtype, rms_norm, rms_norm_over
from .packed_linear_trm import Layer, is_plain_linear

ROWS = 8  # 16-bit tensor cores want rows of a multiple of 16 bytes


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
        return self.down_proj(self.gated(x))

    def gated(self, x: Tensor) -> Tensor:
        """gate(g, v): [..., width] -> [..., inner]."""
        g, v = self.gate_up_proj(x).chunk(2, dim=-1)
        if self.gate_bias is not None:
            g = g + self.gate_bias.to(g.dtype)
        return self._gated(g, v, -1)

    def _gated(self, g: Tensor, v: Tensor, dim: int) -> Tensor:
        """gate(g, v), whose inner width is the axis `dim`."""
        if self.gate == "silu":
            return F.silu(g) * v
        return torch.sigmoid(g) * rms_norm(g * v, self.eps, dim)


class Mlp(GatedMLP):
    """A gated MLP over the channels of each position."""

    def __init__(self, config: TRMConfig) -> None:
        super().__init__(config, config.hidden_size)

    def packed(self, dtype: torch.dtype, linear: Layer) -> Callable[[Tensor], Tensor]:
        """Gate and value as products of their own, the second times what the first gave."""
        gate_weight, up_weight = self.gate_up_proj.weight.chunk(2)
        gate, up = linear(gate_weight, self.gate_bias), linear(up_weight, None)
        down = linear(self.down_proj.weight, None)

        def mlp(x_BLD: Tensor) -> Tensor:
            x = gate.prepare(x_BLD)
            if self.gate == "silu":
                return down(up.times(x, gate.silu(x)))
            g = gate.product(x)
            return down(rms_norm_over(up.times(x, g), self.eps).mul_(g.sigmoid_()))

        return mlp


class MlpT(GatedMLP):
    """A gated MLP over the positions of each channel, so its weights fix the sequence length.

    The reference normalises the transposed tensor, so its post-norm runs over positions: norm_dim = -2.
    """

    fixes_length = True

    def __init__(self, config: TRMConfig) -> None:
        super().__init__(config, config.num_positions)
        self.config, self.norm_dim = config, -2 if config.mlp_t_norm == "positions" else -1

    def forward(self, x_BLD: Tensor) -> Tensor:
        # On a CPU the transposed linear layer is faster; what was put on or around a layer needs the layer's own call.
        if self.config.mlp_t_backend == "auto" and x_BLD.is_cuda and self._are_plain():
            return self.forward_from_the_left(x_BLD)
        return super().forward(x_BLD.transpose(-1, -2)).transpose(-1, -2)

    def _are_plain(self) -> bool:
        return is_plain_linear(self.gate_up_proj) and is_plain_linear(self.down_proj)

    def forward_from_the_left(self, x_BLD: Tensor) -> Tensor:
        """The same function with no tensor transposed: W [2F, L] @ x [L, D] of each sequence."""
        g_BFD, v_BFD = left_multiply(self.gate_up_proj.weight, x_BLD).chunk(2, dim=1)
        if self.gate_bias is not None:
            g_BFD = g_BFD + self.gate_bias.to(g_BFD.dtype)[:, None]
        return left_multiply(self.down_proj.weight, self._gated(g_BFD, v_BFD, -2))

    def packed(self, dtype: torch.dtype, linear: Layer) -> Callable[[Tensor], Tensor]:
        """The weights from the left, W [F, L] @ x [L, D]: nothing is transposed, and nothing is in 8 bits."""
        gate_FL, up_FL = self.gate_up_proj.weight.detach().to(dtype).chunk(2)
        down_LF = self.down_proj.weight.detach().to(dtype)
        bias = None if self.gate_bias is None else self.gate_bias.detach().to(dtype)[:, None]

        def mlp_t(x_BLD: Tensor) -> Tensor:
            x_BLD = x_BLD.to(dtype)
            g_BFD = torch.matmul(gate_FL, x_BLD)
            if bias is not None:
                g_BFD.add_(bias)
            v_BFD = torch.matmul(up_FL, x_BLD)
            if self.gate == "silu":
                return torch.matmul(down_LF, F.silu(g_BFD, inplace=True).mul_(v_BFD))
            return torch.matmul(down_LF, rms_norm_over(v_BFD.mul_(g_BFD), self.eps, -2).mul_(g_BFD.sigmoid_()))

        return mlp_t


def left_multiply(weight_MK: Tensor, x_BKD: Tensor) -> Tensor:
    """weight @ x of each sequence, [B, M, D], in autocast's type; K is padded with zeros to a multiple of ROWS."""
    dtype = autocast_dtype(x_BKD.device.type) or x_BKD.dtype
    pad = -weight_MK.shape[1] % ROWS
    weight_MK, x_BKD = F.pad(weight_MK.to(dtype), (0, pad)), F.pad(x_BKD.to(dtype), (0, 0, 0, pad))
    return LeftProduct.apply(weight_MK, x_BKD)


class LeftProduct(torch.autograd.Function):
    """weight [M, K] @ x [B, K, D] -> [B, M, D], with the weight's gradient in the way that moves fewer numbers.

    Summing a product of each sequence takes [B, M, K] numbers, one product over all of B * D copies of [B, M, D] and
    [B, K, D]. Either way the sum over the batch is in float32.
    """

    @staticmethod
    def forward(weight_MK: Tensor, x_BKD: Tensor) -> Tensor:
        return torch.bmm(weight_MK.expand(len(x_BKD), -1, -1), x_BKD)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, dy_BMD: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        weight_MK, x_BKD = ctx.saved_tensors
        dx_BKD = torch.bmm(weight_MK.T.expand(len(dy_BMD), -1, -1), dy_BMD)
        if x_BKD.shape[1] > x_BKD.shape[2]:
            return dy_BMD.transpose(0, 1).flatten(1) @ x_BKD.transpose(0, 1).flatten(1).T, dx_BKD
        wide = torch.promote_types(weight_MK.dtype, torch.float32)
        return torch.bmm(dy_BMD, x_BKD.mT).sum(0, dtype=wide).to(weight_MK.dtype), dx_BKD
