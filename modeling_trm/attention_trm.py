"""Operator "attention": every cell sees every other. Source: arXiv 2510.04871, models/layers.py Attention.

Shapes: B batch, L positions, D hidden, H heads, P head size.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_trm import TRMConfig
from .layers_trm import Operator, apply_rotary, rotary_tables


class Attention(Operator):
    """Multi-head attention without mask, scaled dot product, RoPE on queries and keys unless positions are learned."""

    is_causal = False  # transformers' SDPA dispatch reads it; its default is True

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.rope_theta = float(config.rope_theta) if config.position_embedding == "rope" else None
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x_BLD: Tensor) -> Tensor:
        B, L, D = x_BLD.shape
        q, k, v = self.qkv_proj(x_BLD).view(B, L, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        if self.rope_theta is not None:
            cos, sin = rotary_tables(L, self.head_dim, self.rope_theta, x_BLD)
            q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
        y_BHLP = F.scaled_dot_product_attention(q, k, v)
        return self.o_proj(y_BHLP.transpose(1, 2).reshape(B, L, D))
