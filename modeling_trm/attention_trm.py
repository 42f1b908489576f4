"""Operator "attention": every cell sees every other. Source: arXiv 2510.04871, models/layers.py Attention.

Shapes: B batch, L positions, D hidden, H heads, P head size.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .configuration_trm import TRMConfig
from .layers_trm import Operator, apply_rotary, rotary_tables, rotary_tables_2d
from .packed_linear_trm import Layer

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
MOST_POSITIONS = 1024  # whose scores are kept: of 16 grids of 30 x 30 and 8 heads 0.2 GB a layer


class Attention(Operator):
    """Multi-head attention without mask, scaled dot product, RoPE on queries and keys unless positions are learned."""

    is_causal = False  # transformers' SDPA dispatch reads it; its default is True

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        self.config, self.num_heads = config, config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.rotates = config.position_embedding in ("rope", "rope2d")
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def prepare(self, x_BLD: Tensor) -> tuple[Tensor, ...]:
        """The rotary tables, cos and sin [L, P]; nothing where positions are learned."""
        config, L = self.config, x_BLD.shape[1]
        if not self.rotates:
            return ()
        if config.position_embedding == "rope":
            return rotary_tables(L, self.head_dim, float(config.rope_theta), x_BLD)
        prefix = config.puzzle_prefix_len
        grid_shape = config.grid_shape(L - prefix)
        return rotary_tables_2d(prefix, grid_shape, self.head_dim, float(config.rope_theta), x_BLD)

    def forward(self, x_BLD: Tensor, *tables: Tensor) -> Tensor:
        """Without the tables of `prepare` it makes its own."""
        B, L, D = x_BLD.shape
        q, k, v = self.qkv_proj(x_BLD).view(B, L, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        if self.rotates:
            cos, sin = tables or self.prepare(x_BLD)
            q, k = apply_rotary(q, cos, sin), apply_rotary(k, cos, sin)
        return self.o_proj(self._attend(q, k, v).transpose(1, 2).reshape(B, L, D))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        backend = self.config.attention_backend
        if backend == "auto":
            return attend(q, k, v)
        reason = _cannot_run(backend, q)
        if reason is not None:
            raise RuntimeError(
                f"attention_backend={backend!r} cannot be used: {reason}; set attention_backend='auto' or 'math'"
            )
        with sdpa_kernel(BACKENDS[backend]):
            return F.scaled_dot_product_attention(q, k, v)

    def packed(self, dtype: torch.dtype, linear: Layer) -> Callable[..., Tensor]:
        qkv_proj, o_proj = (linear(layer.weight, None) for layer in (self.qkv_proj, self.o_proj))
        H, P = self.num_heads, self.head_dim

        def attention(x_BLD: Tensor, *tables: Tensor) -> Tensor:
            B, L, D = x_BLD.shape
            qkv = qkv_proj.product(qkv_proj.prepare(x_BLD)).view(B, L, 3, H, P).permute(2, 0, 3, 1, 4)
            qk = _rotated(qkv[:2], *(table.to(dtype) for table in tables)) if tables else qkv[:2]
            return o_proj(attend(qk[0], qk[1], qkv[2]).transpose(1, 2).reshape(B, L, D))

        return attention


def attend(q_BHLP: Tensor, k_BHLP: Tensor, v_BHLP: Tensor) -> Tensor:
    """Softmax attention without mask [B, H, L, P]: PyTorch's fused kernel, or two products where they are faster.

    In bfloat16 on a CPU its kernel takes twice as long forward, seven times backward (97 positions; 1.5 and 2 times at
    916). The products keep L x L scores for the backward pass, hence the limit.
    """
    if not (q_BHLP.device.type == "cpu" and q_BHLP.dtype == torch.bfloat16 and q_BHLP.shape[2] <= MOST_POSITIONS):
        return F.scaled_dot_product_attention(q_BHLP, k_BHLP, v_BHLP)
    scores_BHLL = torch.matmul(q_BHLP * q_BHLP.shape[3] ** -0.5, k_BHLP.transpose(2, 3))
    return torch.matmul(scores_BHLL.softmax(-1), v_BHLP)


def _rotated(x: Tensor, cos_LP: Tensor, sin_LP: Tensor) -> Tensor:
    """apply_rotary in the type of the tables, with fewer passes over its array; x [2, B, H, L, P] queries and keys."""
    half = x.shape[-1] // 2
    y = torch.mul(x, cos_LP, out=torch.empty(x.shape, dtype=cos_LP.dtype))
    y[..., :half].addcmul_(x[..., half:], sin_LP[:, :half], value=-1)
    y[..., half:].addcmul_(x[..., :half], sin_LP[:, half:])
    return y


def _cannot_run(backend: str, q: Tensor) -> str | None:
    """Why PyTorch has no such kernel; it would say "no available kernel", without a name."""
    if backend in ("cudnn", "efficient") and not q.is_cuda:
        return f"it is for CUDA devices, the tensor is on {q.device}"
    if backend == "cudnn" and torch.are_deterministic_algorithms_enabled():
        return "PyTorch leaves it out where deterministic algorithms are asked for"
    if backend in ("cudnn", "flash") and q.is_cuda and q.dtype not in (torch.bfloat16, torch.float16):
        return f"on CUDA it is for bfloat16 and float16, the tensor is {q.dtype}"
    return None
