"""Operator "delta": gated DeltaNet (arXiv 2412.06464), a state that is corrected instead of only added to.

Parameter names, shapes and initialisation are those of fla.layers.GatedDeltaNet (flash-linear-attention 0.6), so
weights move freely; its defaults: gate, short convolutions, no negative eigenvalues.

Shapes: B batch, L positions, H heads, N size of keys, P size of values, K chunks, Q positions of a chunk.
Paper's letters: q, k [N], v [P] query, key and value, alpha_t = exp(decay_t) what is kept, beta_t writing strength.
    S_t = alpha_t (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T,       o_t = S_t^T q_t / sqrt(N)
"""

from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_trm import TRMConfig
from .layers_trm import Operator, RMSNorm, autocast_dtype
from .mamba2_trm import decay_between, depthwise_conv, draw_dt_bias, running_sum, split_chunks
from .packed_linear_trm import Layer, PackedLinear, with_children, with_packed_linears

CHUNK = 64  # a power of two
UNIT_EPS = 1e-6  # fla's l2norm
FASTEST_DECAY, SLOWEST_DECAY = 16.0, 1e-3  # fla draws the rates from 0, whose logarithm is no number


class GatedDeltaNet(Operator):
    """Projections -> short causal convolutions -> gated delta rule -> RMSNorm -> gate -> o_proj; in raster order."""

    reads_in_order = True

    def __init__(self, config: TRMConfig) -> None:
        super().__init__()
        H, D = config.delta_heads, config.hidden_size
        keys, values = H * config.delta_key_dim, H * config.delta_value_dim
        self.n_heads = H
        self.q_proj = nn.Linear(D, keys, bias=False)
        self.k_proj = nn.Linear(D, keys, bias=False)
        self.v_proj = nn.Linear(D, values, bias=False)
        self.a_proj = nn.Linear(D, H, bias=False)
        self.b_proj = nn.Linear(D, H, bias=False)
        self.g_proj = nn.Linear(D, values, bias=False)
        self.q_conv1d = nn.Conv1d(keys, keys, config.delta_d_conv, groups=keys, bias=False)
        self.k_conv1d = nn.Conv1d(keys, keys, config.delta_d_conv, groups=keys, bias=False)
        self.v_conv1d = nn.Conv1d(values, values, config.delta_d_conv, groups=values, bias=False)
        self.A_log = nn.Parameter(torch.empty(H))
        self.dt_bias = nn.Parameter(torch.empty(H))
        self.o_norm = RMSNorm(config.delta_value_dim, config.rms_norm_eps)
        self.o_proj = nn.Linear(values, D, bias=False)

    def init_parameters(self) -> None:
        """fla's: rates uniform up to 16, dt log-uniform in [0.001, 0.1]."""
        rates_H = torch.empty(self.n_heads, device=self.A_log.device).uniform_(SLOWEST_DECAY, FASTEST_DECAY)
        init.copy_(self.A_log, rates_H.log())
        init.copy_(self.dt_bias, draw_dt_bias(self.dt_bias))
        init.ones_(self.o_norm.weight)

    def forward(self, x_BLD: Tensor) -> Tensor:
        q, k, v = (
            F.silu(depthwise_conv(proj(x_BLD), conv)).unflatten(-1, (self.n_heads, -1))
            for proj, conv in (
                (self.q_proj, self.q_conv1d),
                (self.k_proj, self.k_conv1d),
                (self.v_proj, self.v_conv1d),
            )
        )
        a_BLH, b_BLH = self.a_proj(x_BLD), self.b_proj(x_BLD)
        device = x_BLD.device.type
        # In float32 at least, autocast or not: the corrections of a chunk build on one another.
        with torch.autocast(device, enabled=False) if autocast_dtype(device) else nullcontext():
            wide = torch.promote_types(v.dtype, torch.float32)
            decay_BLH = -self.A_log.to(wide).exp() * F.softplus(a_BLH.to(wide) + self.dt_bias.to(wide))
            q_BLHN, k_BLHN = unit(q.to(wide)) * q.shape[-1] ** -0.5, unit(k.to(wide))
            y_BLHP = gated_delta_rule(q_BLHN, k_BLHN, v.to(wide), decay_BLH, b_BLH.to(wide).sigmoid())
        gate_BLHP = F.silu(self.g_proj(x_BLD)).unflatten(-1, (self.n_heads, -1))
        return self.o_proj((self.o_norm(y_BLHP.to(v.dtype)) * gate_BLHP).flatten(-2))

    def packed(self, dtype: torch.dtype, linear: Layer) -> Callable[[Tensor], Tensor]:
        """The forward, its rates and writing strengths never in 8 bits: they act over all positions."""
        small = {name: PackedLinear(getattr(self, name).weight, None, dtype) for name in ("a_proj", "b_proj")}
        return with_children(with_packed_linears(self, linear), **small)


def unit(x: Tensor) -> Tensor:
    """x / |x| over the last axis."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + UNIT_EPS)


def gated_delta_rule(q_BLHN: Tensor, k_BLHN: Tensor, v_BLHP: Tensor, decay_BLH: Tensor, beta_BLH: Tensor) -> Tensor:
    """o [B, L, H, P] of the recurrence above, of scaled queries, in chunks (paper, section 3.3: the WY form).

    What position i of a chunk writes is its value less what the state, as its predecessors leave it, has under its key:
    w_i = beta_i (v_i - S^T k_i), a triangular system over the chunk, whose inverse is the same for every state.

    Args:
        decay_BLH: logarithm of alpha, negative. beta_BLH: in (0, 1).
    """
    L = q_BLHN.shape[1]
    q, k, v, decay, beta = (
        split_chunks(t, chunk_size(L)).transpose(2, 3) for t in (q_BLHN, k_BLHN, v_BLHP, decay_BLH, beta_BLH)
    )
    total_BKHQ = running_sum(decay, 3)
    since_start = total_BKHQ.exp()[..., None]
    to_end = (total_BKHQ[..., -1:] - total_BKHQ).exp()[..., None]
    kept_BKHQQ = decay_between(total_BKHQ)
    written_k = k * beta[..., None]
    solve_BKHQQ = inverse_of_unit_lower((written_k @ k.mT * kept_BKHQQ).tril(-1))
    from_values = solve_BKHQQ @ (v * beta[..., None])
    read_BKHQQ = (q @ k.mT * kept_BKHQQ).tril()
    found, read_state, add_state = written_k * since_start, q * since_start, (k * to_end).mT
    written = from_values[:, 0]
    outputs, state_BHNP = [read_BKHQQ[:, 0] @ written], v.new_zeros(())
    for i in range(1, q.shape[1]):
        state_BHNP = state_BHNP * since_start[:, i - 1, :, -1:] + add_state[:, i - 1] @ written
        written = from_values[:, i] - solve_BKHQQ[:, i] @ (found[:, i] @ state_BHNP)
        outputs.append(read_BKHQQ[:, i] @ written + read_state[:, i] @ state_BHNP)
    return torch.stack(outputs, dim=1).transpose(2, 3).flatten(1, 2)[:, :L]


def chunk_size(length: int) -> int:
    """A power of two from 2, no longer than is needed."""
    return min(CHUNK, max(2, 1 << (length - 1).bit_length()))


def inverse_of_unit_lower(A_QQ: Tensor) -> Tensor:
    """(I + A)^-1 of a strictly lower triangular A [..., Q, Q], Q a power of two from 2; by halves, in products alone.

    As stable as forward substitution, unlike a series of powers of A; and every exporter knows products.
    """
    half = A_QQ.shape[-1] // 2
    if half == 1:
        return torch.eye(2, dtype=A_QQ.dtype, device=A_QQ.device) - A_QQ
    upper, lower = inverse_of_unit_lower(torch.stack((A_QQ[..., :half, :half], A_QQ[..., half:, half:]))).unbind(0)
    between = -(lower @ A_QQ[..., half:, :half] @ upper)
    return torch.cat((torch.cat((upper, torch.zeros_like(upper)), -1), torch.cat((between, lower), -1)), -2)
