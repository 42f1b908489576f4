"""Operator "symbols": mixes the symbol fields at each cell. Sources: arXiv 2603.02193 (attention over the symbols); the
public digit-field TRM (mean of the other fields).

Every field has the same weights and sees the others as a set, so permuting the fields permutes the output.

Shapes: B batch, K symbol fields, L positions, D hidden, H heads, P head size.
"""

import torch
from torch import Tensor, nn

from .configuration_trm import TRMConfig
from .layers_trm import Operator


class Symbols(Operator):
    """y_k = W mean of the other fields, or attention of field k over the others: [B, K, L, D] -> [B, K, L, D]."""

    mixes_fields = True

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.num_heads, attends = config.num_attention_heads, config.symbol_mixing == "attention"
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False) if attends else None
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x_BKLD: Tensor) -> Tensor:
        if self.qkv_proj is None:
            others = x_BKLD.sum(1, keepdim=True) - x_BKLD
            return self.o_proj(others / (x_BKLD.shape[1] - 1))
        return self.o_proj(self._attend(self.qkv_proj(x_BKLD)))

    def _attend(self, qkv_BKLE: Tensor) -> Tensor:
        """Written out: for so few fields, so often, PyTorch's fused kernels are slower, and none takes this mask."""
        K = qkv_BKLE.shape[1]
        q, k, v = qkv_BKLE.unflatten(-1, (3, self.num_heads, -1)).permute(3, 0, 2, 4, 1, 5).unbind(0)  # [B, L, H, K, P]
        scores_BLHKK = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        own_KK = torch.eye(K, dtype=torch.bool, device=q.device)
        weights_BLHKK = scores_BLHKK.masked_fill(own_KK, float("-inf")).softmax(-1).to(v.dtype)
        return (weights_BLHKK @ v).permute(0, 3, 1, 2, 4).flatten(-2)
