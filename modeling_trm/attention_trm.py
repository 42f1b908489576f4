"""Operator "attention": every cell sees every other. Source: arXiv 2510.04871, models/layers.py Attention.

Shapes: B batch, L positions, D hidden, H heads, P head size.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .configuration_trm import TRMConfig
from .layers_trm import Operator, apply_rotary, rotary_tables

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


class Attention(Operator):
    """Multi-head attention without mask, scaled dot product, RoPE on queries and keys unless positions are learned."""

    is_causal = False  # transformers' SDPA dispatch reads it; its default is True

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.config, self.num_heads = config, config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.rope_theta = float(config.rope_theta) if config.position_embedding == "rope" else None
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def prepare(self, x_BLD: Tensor) -> tuple[Tensor, ...]:
        """The rotary tables, cos and sin [L, P]; nothing where positions are learned."""
        if self.rope_theta is None:
            return ()
        return rotary_tables(x_BLD.shape[1], self.head_dim, self.rope_theta, x_BLD)

    def forward(self, x_BLD: Tensor, *tables: Tensor) -> Tensor:
        """Without the tables of `prepare` it makes its own."""
        B, L, D = x_BLD.shape
        q, k, v = self.qkv_proj(x_BLD).view(B, L, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        if self.rope_theta is not None:
            cos, sin = tables or self.prepare(x_BLD)
            q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
        return self.o_proj(self._attend(q, k, v).transpose(1, 2).reshape(B, L, D))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        backend = self.config.attention_backend
        if backend == "auto":
            return F.scaled_dot_product_attention(q, k, v)
        reason = _cannot_run(backend, q)
        if reason is not None:
            raise RuntimeError(
                f"attention_backend={backend!r} cannot be used: {reason}; set attention_backend='auto' or 'math'"
            )
        with sdpa_kernel(BACKENDS[backend]):
            return F.scaled_dot_product_attention(q, k, v)


def _cannot_run(backend: str, q: Tensor) -> str | None:
    """Why PyTorch has no such kernel; it would say "no available kernel", without a name."""
    if backend in ("cudnn", "efficient") and not q.is_cuda:
        return f"it is for CUDA devices, the tensor is on {q.device}"
    if backend == "cudnn" and torch.are_deterministic_algorithms_enabled():
        return "PyTorch leaves it out where deterministic algorithms are asked for"
    if backend in ("cudnn", "flash") and q.is_cuda and q.dtype not in (torch.bfloat16, torch.float16):
        return f"on CUDA it is for bfloat16 and float16, the tensor is {q.dtype}"
    return None
